"""The directory that login and compute nodes share: images, unpacked once each, and the runs under way.

``images/HEX/rootfs`` is complete or not there; ``images/HEX/.used`` has the time of its last use, for
whoever clears up. ``runs/NAME`` is a run's own, and goes with it.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from envbuild.docker.job import unpack_plain
from envbuild.errors import BuildError, RunError
from envbuild.oci.image import Image
from envbuild.progress import Progress
from envbuild.run import launcher
from envbuild.run.rootfs import held_rootfs, unpack_image
from envbuild.store.content import Store
from envbuild.targets.slurm.command import SlurmLogin
from envbuild.targets.slurm.script import LAUNCHER, LOG, SCRIPT, STATUS

_OLD_MINUTES = 24 * 60
"""What is older and still half unpacked belongs to nobody alive."""
_PIECE = 1 << 20


class SharedDirectory:
    """The shared directory as the login node sees it. All methods raise ``RunError``."""

    def __init__(self, path: str, login: SlurmLogin) -> None:
        self.path = PurePosixPath(path)
        self.login = login

    def rootfs(self, image: Image) -> str:
        """Where the unpacked image is, or will be."""
        return str(self._image(image) / "rootfs")

    def run(self, name: str) -> str:
        """The directory of a run."""
        return str(self.path / "runs" / name)

    def has_image(self, image: Image) -> bool:
        """Whether the image is there, unpacked."""
        return self.login.run(f"test -d {shlex.quote(self.rootfs(image))}").status == 0

    # --- images ---------------------------------------------------------------------------------------

    def unpack(self, image: Image, store: Store, progress: Progress) -> None:
        """Unpacks the image unless it is there. Others may do the same at once: one of them wins."""
        if not self.has_image(image):
            images = shlex.quote(str(self.path / "images"))
            self._run_checked(
                f"mkdir -p {images} && find {images} -maxdepth 1 -name '.part-*' -mmin +{_OLD_MINUTES} "
                "-exec rm -rf {} +",
                "make a place for images",
            )
            with progress.task("unpack", "the image", total=1, unit="images") as task:
                if self.login.host is None:
                    self._unpack_here(image, store)
                else:
                    self._unpack_there(image, store)
                task.advance(1)
        # Others' images may be used as well, and not marked.
        self.login.run(f"touch {shlex.quote(str(self._image(image) / '.used'))}")

    def _image(self, image: Image) -> PurePosixPath:
        return self.path / "images" / image.digest.removeprefix("sha256:")

    def _part(self) -> PurePosixPath:
        return self.path / "images" / f".part-{secrets.token_hex(8)}"

    def _unpack_here(self, image: Image, store: Store) -> None:
        part, target = Path(self._part()), Path(self._image(image))
        try:
            (part / "rootfs").mkdir(parents=True)
            unpack_image(image, store, part / "rootfs")
            part.rename(target)
        except BuildError as error:
            raise RunError(error.message, hint=error.hint) from error
        except OSError as error:
            if not (target / "rootfs").is_dir():
                raise RunError(
                    f"can't unpack the image into {target}: {error.strerror or error}",
                    hint="free some space there, or give the target another directory",
                ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _unpack_there(self, image: Image, store: Store) -> None:
        part, target = shlex.quote(str(self._part())), shlex.quote(str(self._image(image)))
        with held_rootfs(image, store) as root:
            # mv -T into a directory that isn't empty fails: somebody else was faster.
            self.login.send_directory(
                root,
                f"mkdir -p {part}/rootfs && tar -C {part}/rootfs -xpf - "
                f"&& {{ mv -T {part} {target} 2> /dev/null || test -d {target}/rootfs; }}; "
                f"status=$?; rm -rf {part}; exit $status",
            )

    # --- runs -----------------------------------------------------------------------------------------

    def create_run(self, name: str, script: str) -> None:
        """Makes the directory of a run with its script, readable by nobody else."""
        run = shlex.quote(self.run(name))
        self._run_checked(
            f"mkdir -p {shlex.quote(str(self.path / 'runs'))} && umask 077 && mkdir {run} {run}/outputs "
            f"{run}/stage && cat > {run}/{LAUNCHER}",
            "make the run's directory",
            Path(launcher.__file__).read_bytes(),
        )
        try:
            self._run_checked(
                f"umask 077 && cat > {run}/{SCRIPT} && chmod 700 {run}/{SCRIPT}",
                "write the run's script",
                script.encode(),
            )
        except BaseException:
            self.remove_run(name)
            raise

    def log_piece(self, name: str, offset: int) -> bytes:
        """What the run printed from ``offset`` on, at most 1 MiB; nothing where there is no log yet."""
        log = shlex.quote(f"{self.run(name)}/{LOG}")
        return self.login.run(f"tail -c +{offset + 1} {log} 2> /dev/null | head -c {_PIECE}").out

    def status(self, name: str) -> int | None:
        """The command's exit status as the run's script left it; None: it didn't come to that."""
        answer = self.login.run(f"head -c 4 {shlex.quote(f'{self.run(name)}/{STATUS}')}")
        text = answer.out.decode(errors="replace").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    def bring_outputs(self, name: str, directory: Path) -> bool:
        """Puts what the run wrote into ``directory``. False where there is nothing."""
        if self.login.host is None:
            paths = list(Path(self.run(name), "outputs").iterdir())
            for path in paths:
                shutil.move(path, directory / path.name)
            return bool(paths)
        with tempfile.TemporaryFile() as file:
            command = f"tar -C {shlex.quote(self.run(name))} -cf - outputs"
            if self.login.fetch_to(command, file.fileno()) != 0:
                raise RunError(f"the outputs can't be brought from {self.login.place}")
            file.seek(0)
            return unpack_plain(file, directory)

    def remove_run(self, name: str) -> None:
        """Takes the run's directory away. Never raises."""
        with contextlib.suppress(RunError):
            self.login.run(f"rm -rf {shlex.quote(self.run(name))}")

    def _run_checked(self, script: str, purpose: str, data: bytes = b"") -> None:
        answer = self.login.run(script, data=data)
        if answer.status != 0:
            raise RunError(
                f"can't {purpose} in {self.path} of {self.login.place}: {answer.complaint}",
                hint="the target's directory must be one that you can write to",
            )
