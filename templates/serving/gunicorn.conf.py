"""Written by envbuild: how the server that azmlinfsrv starts runs in this image.

A worker has one loop that accepts, threads that each read a request and write its answer, and its main
thread, where run() is called for one request after the other. So a client that says nothing, or half of what
it has to say, holds up neither the liveness route nor anybody else, and a script needs to know nothing of
threads: init() and run() share one, which SCORING_TIMEOUT_MS, as a signal, needs as well.

ENVBUILD_SCORING_THREADS, if more than 1, says that run() is thread-safe, and how many may be in it at once.
"""

import contextlib
import errno
import mmap
import os
import queue
import resource
import signal
import socket
import tempfile
import threading
import time

from gunicorn.workers.gthread import ThreadWorker

HEADER_SECONDS = 10
"""From the first look at a connection to the end of the request's header."""
PIECE, PIECE_SECONDS = 64 << 10, 30
"""So many bytes of a body, or of an answer, have so much time: a slow client isn't a silent one."""
LINGER_SECONDS = 2
"""How long a client may take to close what was answered. Closed at once, it could lose the answer's end."""
SCORINGS, OTHERS = 256, 64
"""How many requests may wait for run() or be in it, and how many threads are there for all others."""
BUSY = b'{"message": "The service is busy. Try again later."}'
WORKERS = 256


def scoring_threads():
    said = os.environ.get("ENVBUILD_SCORING_THREADS", "1")
    if not said.isascii() or not said.isdigit() or not 1 <= int(said) <= SCORINGS:
        raise ValueError(f"ENVBUILD_SCORING_THREADS is {said!r}, and has to be a number from 1 to {SCORINGS}")
    return int(said)


def most_connections():
    """The server ends where it may open no more files, so it leaves some to the script."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1000 if most == resource.RLIM_INFINITY else max(OTHERS, min(1000, most - SCORINGS - 2 * OTHERS))


def largest_in_memory():
    """The size from which a body waits for its turn in a file; 0 is none, where nothing can be written."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return 0
    return 1 << 20


# Nothing asks it in here, and the home may be read-only.
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Requests in flight are answered before the server is killed.
graceful_timeout = 25
worker_class = "__config__.Worker"
threads = SCORINGS + OTHERS
worker_connections = most_connections()
# A client that sends when an idle connection is just being closed would get no answer.
keepalive = 0

AT_ONCE = scoring_threads()
IN_MEMORY = largest_in_memory()
LOADS = mmap.mmap(-1, WORKERS)
"""Of each worker, one more than the number of its connections: all workers see it."""


def on_starting(server):
    """Listens on one address alone where the starter says so: the server's own default is all of them."""
    host = os.environ.get("ENVBUILD_HOST")
    if host:
        server.cfg.set("bind", [host + ":" + address.rpartition(":")[2] for address in server.cfg.bind])


def post_worker_init(worker):
    """Every answer says which run and image gave it, so that a prediction leads back to them."""
    said = [("x-envbuild-run", "ENVBUILD_RUN"), ("x-envbuild-image", "ENVBUILD_IMAGE")]
    said = [(header, os.environ[name]) for header, name in said if os.environ.get(name)]
    answer = worker.wsgi

    def answering(environ, start_response):
        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, *said], exc_info)

        return answer(environ, start)

    worker.wsgi = answering


def child_exit(server, worker):
    LOADS[worker.age % WORKERS] = 0


class Call:
    """A request that the application answers in one thread, while another one writes what it answers."""

    def __init__(self, application, environ, start_response):
        self.application, self.environ, self.start_response = application, environ, start_response
        self.answer = queue.SimpleQueue()
        """Chunks; at the end None, or what was raised; a False alone is a refusal."""
        self.unwanted = False

    def perform(self):
        try:
            chunks = self.application(self.environ, self.start_response)
            try:
                for chunk in chunks:
                    self.answer.put(chunk)
                    if self.unwanted:
                        break
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
            self.answer.put(None)
        except BaseException as error:
            self.answer.put(error)
            raise
        finally:
            self.environ["wsgi.input"].close()


class Worker(ThreadWorker):
    """Gunicorn's worker with threads, of any release from 20.1 on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        most = self.cfg.threads
        self.room = threading.BoundedSemaphore(most - OTHERS if most > OTHERS else most)
        self.calls = queue.SimpleQueue()
        self.began = {}
        """When the calls began that are being performed."""
        self.deadlines = {}
        """Until when a connection must have done its next step, and until when if the worker ends."""
        self.ended = threading.Event()
        self.refuses = False
        self.of_thread = threading.local()

    def load_wsgi(self):
        super().load_wsgi()
        application = self.wsgi

        def in_turn(environ, start_response):
            if environ["PATH_INFO"] == "/":
                # Liveness and readiness: nothing of the script is called.
                self.limit(PIECE_SECONDS)
                return application(environ, start_response)
            return self.score(application, environ, start_response)

        self.wsgi = in_turn

    # --- threads ---

    def run(self):
        """Calls of one at a time are performed in the thread that called init()."""
        own = self.calls if AT_ONCE == 1 else queue.SimpleQueue()
        if AT_ONCE > 1:
            if "SCORING_TIMEOUT_MS" in os.environ:
                self.log.warning("SCORING_TIMEOUT_MS bounds nothing: ENVBUILD_SCORING_THREADS is above 1")
            for _ in range(AT_ONCE):
                threading.Thread(target=self.perform, args=(self.calls,), daemon=True).start()
        failures = []

        def serve():
            try:
                super(Worker, self).run()
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
            finally:
                self.ended.set()
                for _ in range(AT_ONCE):
                    self.calls.put(None)
                own.put(None)

        for target in (serve, self.watch):
            threading.Thread(target=target, daemon=True).start()
        try:
            self.perform(own)
        finally:
            self.refuse_waiting()
        if failures:
            raise failures[0]

    def perform(self, calls):
        while True:
            try:
                # SIGTERM, as gunicorn sets it, doesn't end a wait: it is seen at the next one.
                call = calls.get(timeout=0.2)
            except queue.Empty:
                continue
            if call is None:
                return
            self.began[call] = time.monotonic()
            try:
                call.perform()
            except Exception:  # noqa: BLE001
                pass  # The thread that waits for the answer raises it.
            except BaseException:
                if not self.alive:
                    raise
            finally:
                del self.began[call]

    def refuse_waiting(self):
        self.refuses = True
        try:
            while True:
                call = self.calls.get_nowait()
                if call is not None:
                    call.answer.put(False)
        except queue.Empty:
            pass

    # --- the loop ---

    def accept(self, *args):
        """Leaves a connection to a worker that has fewer, which needs no more than a moment to take it."""
        if not self.alive:
            return
        if self.cfg.workers > 1:
            own = LOADS[self.age % WORKERS] = min(self.nr_conns + 1, 255)
            if any(0 < load < own for load in LOADS[:]):
                time.sleep(0.001)
        super().accept(*args)

    def notify(self):
        super().notify()
        if self.cfg.workers > 1:
            LOADS[self.age % WORKERS] = min(self.nr_conns + 1, 255)

    def watch(self):
        """Ends what takes too long: a connection, and a worker whose run() never comes back."""
        longest = 0
        while not 0 < self.cfg.timeout < longest:
            ended = self.ended.wait(0.5)
            now = time.monotonic()
            for connection, (deadline, deadline_of_end) in self.deadlines.copy().items():
                if ended or now > (deadline if self.alive else deadline_of_end):
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
            if ended:
                return
            longest = max((now - began for began in self.began.copy().values()), default=0)
        # The arbiter does the same to a worker of one thread, whose loop stands still meanwhile.
        self.log.critical("WORKER TIMEOUT (pid:%s): run() takes longer than WORKER_TIMEOUT", os.getpid())
        self.alive = False
        self.refuse_waiting()
        os.kill(os.getpid(), signal.SIGABRT)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    # --- the threads of connections ---

    def limit(self, seconds, at_end=None):
        """How long the next step of this thread's connection may take; ``at_end`` where the worker ends."""
        now = time.monotonic()
        self.deadlines[self.of_thread.connection] = now + seconds, now + (at_end or seconds)

    def unlimit(self):
        self.deadlines.pop(self.of_thread.connection, None)

    def handle(self, conn):
        self.of_thread.connection = conn
        self.limit(HEADER_SECONDS, at_end=1)
        try:
            result = super().handle(conn)
            if not (result[0] if isinstance(result, tuple) else result):
                # Else the loop does so, for all others to wait.
                self.limit(LINGER_SECONDS)
                self.end(conn.sock)
            return result
        finally:
            self.unlimit()

    def end(self, sock):
        for how in (socket.SHUT_WR, socket.SHUT_RD):
            try:
                sock.shutdown(how)
                while how == socket.SHUT_WR and sock.recv(PIECE):
                    pass
            except (OSError, ValueError):
                pass

    def score(self, application, environ, start_response):
        if not self.room.acquire(blocking=False):
            yield self.refusal(start_response)
            return
        call = None
        try:
            environ["wsgi.input"] = self.body(environ)
            self.unlimit()
            call = Call(application, environ, start_response)
            self.calls.put(call)
            if self.refuses:
                self.refuse_waiting()
            while True:
                chunk = call.answer.get()
                if chunk is None:
                    # What is still to be written is the end of an answer in chunks.
                    self.limit(PIECE_SECONDS)
                    return
                if chunk is False:
                    environ["wsgi.input"].close()
                    self.limit(PIECE_SECONDS)
                    yield self.refusal(start_response)
                    return
                if isinstance(chunk, Exception):
                    raise chunk
                if isinstance(chunk, BaseException):
                    raise RuntimeError("run() ended its thread") from chunk
                for start in range(0, len(chunk), PIECE):
                    self.limit(PIECE_SECONDS)
                    yield chunk[start : start + PIECE]
                self.unlimit()
        finally:
            if call is not None:
                call.unwanted = True
            self.room.release()

    def body(self, environ):
        """All of the body, so that run() never waits for a client."""
        with contextlib.ExitStack() as unless_whole:
            body = unless_whole.enter_context(tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))
            while True:
                self.limit(PIECE_SECONDS)
                piece = environ["wsgi.input"].read(PIECE)
                if not piece:
                    break
                body.write(piece)
            if body.tell() < int(environ.get("CONTENT_LENGTH") or 0):
                raise ConnectionResetError(errno.ECONNRESET, "the body ended before its length")
            body.seek(0)
            unless_whole.pop_all()
        return body

    def refusal(self, start_response):
        start_response(
            "503 Service Unavailable",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(BUSY))),
                ("Retry-After", "1"),
            ],
        )
        return BUSY
