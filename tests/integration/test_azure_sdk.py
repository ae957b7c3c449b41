"""Scripts for Azure ML's first SDK, with their imports changed and nothing else: built and run here."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.channel import make_channel, python_version
from tests.fakes.wheelhouse import Wheel, Wheelhouse
from tests.integration.driver import Machine, needs_user_namespaces, shell_machine

pytestmark = needs_user_namespaces()


def script(machine: Machine, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script of the SDK's, after its imports were changed."""
    path = machine.write("guide.py", text.replace("azureml.core", "envbuild.azure"))
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        env={**machine.environment(), **environment},
        cwd=machine.project,
        capture_output=True,
        text=True,
        timeout=400,
    )


TAKEN_AS_IT_IS = """
import os
from azureml.core import Environment, Experiment, RunConfiguration, ScriptRunConfig, Workspace
from azureml.core.container_registry import ContainerRegistry

ws = Workspace.from_config()
print(ws.name)
registry = ContainerRegistry()
registry.address = os.environ["REGISTRY"]
myenv = Environment.from_docker_image("myenv", "shell:1", container_registry=registry)
myenv.python.interpreter_path = "/bin/sh"
myenv.environment_variables["MESSAGE"] = "Hello from here"

run_config = RunConfiguration()
run_config.environment = myenv
run_config.target = "local"
src = ScriptRunConfig(source_directory="train_dir", script="train.sh", arguments=["--depth", 3],
                      run_config=run_config)
run = Experiment(workspace=ws, name="environment-example").submit(config=src)
details = run.wait_for_completion(show_output=True)
print(run.get_status(), details["properties"]["environment"])
print(run.get_environment().environment_variables, run.get_file_names())
print(sorted(name for name in Environment.list(workspace=ws) if name.startswith("my")))

src = ScriptRunConfig("train_dir", command="sh -c 'exit 3'", environment=myenv.clone("other"))
run = Experiment(ws, "environment-example").submit(src)
try:
    run.wait_for_completion()
except Exception as error:
    print(type(error).__name__, run.get_status())
"""


def test_an_image_as_it_is_runs_a_script_and_is_registered(tmp_path: Path) -> None:
    with shell_machine(tmp_path) as machine:
        machine.write(".azureml/config.json", json.dumps({"workspace_name": "team", "subscription_id": "s"}))
        machine.write("train_dir/train.sh", 'echo "$MESSAGE: $*"\necho 1 > outputs/model\n')
        done = script(machine, TAKEN_AS_IT_IS)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "team",
            "Hello from here: --depth 3",
            "Completed myenv:1",
            "{'MESSAGE': 'Hello from here'} ['outputs/model']",
            "['myenv']",
            "RunError Failed",
        ]
        listed = json.loads(machine.run("env", "list", "--json").stdout)
        assert [(row["name"], row["latest"]) for row in listed["environments"]] == [
            ("myenv", "1"),
            ("other", "1"),
        ]


GUIDE = """
from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.conda_dependencies import CondaDependencies

ws = Workspace.from_config()
whl_url = Environment.add_private_pip_wheel(workspace=ws, file_path="mine-1.0-py3-none-any.whl")
myenv = Environment.from_conda_specification(name="myenv", file_path="conda/environment.yml")
conda_dep = myenv.python.conda_dependencies
conda_dep.add_conda_package("libtool")
conda_dep.add_pip_package("pillow")
conda_dep.add_pip_package(whl_url)
myenv.python.conda_dependencies = conda_dep
myenv.docker.base_image = BASE
myenv.environment_variables = {"MESSAGE": "Hello from Azure Machine Learning"}
myenv.register(workspace=ws)
restored = Environment.get(workspace=ws, name="myenv", version="1")

build = restored.build(workspace=ws)
build.wait_for_completion(show_output=True)
print(build.status, restored.get_image_details(ws).image_exist)

src = ScriptRunConfig(source_directory="train_dir", script="train.py", compute_target="local",
                      environment=restored)
run = Experiment(workspace=ws, name="environment-example").submit(config=src)
run.wait_for_completion(show_output=True)
print(run.get_details()["properties"]["environment"])
run.download_file("outputs/model", "model/weights")

from azureml.core.model import InferenceConfig, Model
from azureml.core.webservice import LocalWebservice, Webservice

inference_config = InferenceConfig(entry_script="score.py", source_directory="train_dir",
                                   environment=restored)
service = Model.deploy(workspace=ws, name="my-web-service", models=[Model(ws, "model")],
                       inference_config=inference_config,
                       deployment_config=LocalWebservice.deploy_configuration(port=PORT))
service.wait_for_deployment(show_output=True)
print(isinstance(service, Webservice), service.state, service.run("[1]"), service.get_logs().strip())
service.delete()
print(service.state)
"""
SERVER = """
import argparse, http.server, os, runpy, signal, sys

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--entry_script")
    parser.add_argument("--port", type=int)
    options, _ = parser.parse_known_args()
    script = runpy.run_path(options.entry_script)
    script["init"]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer("Healthy")

        def do_POST(self):
            self.answer(script["run"](self.rfile.read(int(self.headers["content-length"])).decode()))

        def answer(self, text):
            self.send_response(200)
            self.send_header("x-envbuild-run", os.environ["ENVBUILD_RUN"])
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", options.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()
"""
SCORE = """
import os
import mine

def init():
    global weights
    with open(os.environ["AZUREML_MODEL_DIR"] + "/weights") as file:
        weights = file.read().strip()
    print("initialized", flush=True)

def run(data):
    return f"{weights} {mine.value} {data}"
"""
TRAIN = """
import os, sys
import mine, pillow
print(os.environ["MESSAGE"], pillow.value, mine.value, sys.version.split()[0])
with open("outputs/model", "w") as file:
    file.write("trained")
"""


@pytest.mark.slow
def test_the_guide_builds_a_conda_environment_trains_and_serves_in_it(tmp_path: Path) -> None:
    # Conda's python needs more of the C library than a shell does.
    with shell_machine(tmp_path, "awk") as machine:
        channel = make_channel(tmp_path / "channel")
        index = Wheelhouse(tmp_path / "index")
        server = Wheel(
            name="azureml-inference-server-http",
            version="1.4",
            files={"inference_server.py": SERVER.encode()},
            entry_points="[console_scripts]\nazmlinfsrv = inference_server:main\n",
        )
        index.add(Wheel(name="pillow"), server)
        mine = Wheel(name="mine", files={"mine.py": b"value = 2\n"})
        (machine.project / mine.file).write_bytes(mine.data())
        machine.write(
            "conda/environment.yml",
            f"channels: ['{channel}']\ndependencies: [python={python_version()}]\n",
        )
        machine.write("train_dir/train.py", TRAIN)
        machine.write("train_dir/score.py", SCORE)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        guide = GUIDE.replace("BASE", repr(f"{machine.env['REGISTRY']}/shell:1")).replace("PORT", port)
        done = script(machine, guide, UV_DEFAULT_INDEX=index.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "Succeeded True",
            f"Hello from Azure Machine Learning 1 2 {python_version()}",
            "myenv:1",
            "True Healthy trained 2 [1] initialized",
            "Deleted",
        ]
