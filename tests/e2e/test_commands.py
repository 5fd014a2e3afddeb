"""The two commands, in a repository as small as can be: its lists are empty and it builds itself, so no network."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKEND = """
import zipfile
def _wheel(folder):
    name = "roadcast-0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("roadcast-0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: roadcast\\nVersion: 0\\n")
        wheel.writestr("roadcast-0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("roadcast-0.dist-info/RECORD", "")
    return name
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory)
build_wheel = build_editable
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["build"]
[project]
name = "roadcast"
version = "0"
requires-python = ">=3.11,<3.15"
dependencies = []
"""
SHOW = "import os, sys; print('became', os.getpid(), sys.prefix, *sys.argv[1:], flush=True)\n"


class Repository:
    """The commands' real files around a package that only says how it was called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("src/api/deploy.py", "src/api/tests/run_tests.py", "src/roadcast/bootstrap.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        for name, text in {
            "src/roadcast/__init__.py": "",
            "src/roadcast/__main__.py": SHOW,
            "src/pytest.py": SHOW,
            "build/backend.py": BACKEND,
            "pyproject.toml": PROJECT,
            "requirements-fastapi.txt": "# nothing\n",
            "requirements-dev.txt": "# nothing\n",
        }.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)

    def run(
        self, command: str, *arguments: str, python: str = sys.executable, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, self.root / "src" / "api" / command, *arguments],
            cwd="/",
            env={**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "roadcast-install.json"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "here")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """An installation that is made once."""
    made = Repository(tmp_path_factory.mktemp("template"))
    (made.root / "tests").mkdir()
    assert made.run("tests/run_tests.py").returncode == 0
    return made


@pytest.fixture
def installed(repository: Repository, template: Repository) -> Repository:
    """A repository whose .venv is whole."""
    shutil.copytree(template.root / ".venv", repository.root / ".venv", symlinks=True)
    stamp = template.stamp.read_text()
    repository.stamp.write_text(stamp.replace(str(template.root), str(repository.root)))
    return repository


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that refused."""
    assert done.returncode == 1
    assert done.stderr.startswith("roadcast: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_it_installs_once_and_becomes_the_server(repository: Repository) -> None:
    first = repository.run("deploy.py", "--config", "production", "--install-deps", "--health-check")
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(f"{repository.root}/.venv serve --config production --health-check\n")
    again = repository.run("deploy.py", "--install-deps", PATH="/nowhere")
    assert "Installing" in first.stdout
    assert again.stdout.splitlines() == [again.stdout.strip()]
    assert again.stdout.endswith(f"{repository.root}/.venv serve --config development\n")


def test_its_process_number_stays(installed: Repository) -> None:
    command = [sys.executable, installed.root / "src/api/deploy.py", "--install-deps"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0]
    assert said.startswith(f"became {process.pid} ")


def test_without_install_it_runs_in_the_interpreter_that_called(repository: Repository) -> None:
    done = repository.run("deploy.py")
    assert done.stdout.endswith(f"{sys.prefix} serve --config development\n")
    assert not repository.stamp.exists()


def test_the_health_check_alone_asks_and_starts_nothing(repository: Repository) -> None:
    assert repository.run("deploy.py", "--health-check").stdout.endswith(" health\n")


def test_missing_dependencies_are_named_with_the_remedy(repository: Repository) -> None:
    project = repository.root / "pyproject.toml"
    project.write_text(project.read_text().replace("[]\n", '["no-such-thing[extra]>=1"]\n'))
    line = refused(repository.run("deploy.py"))
    assert f"{sys.executable} lacks no-such-thing." in line
    assert "Add --install-deps" in line


def test_where_the_environment_has_them_the_remedy_says_so(installed: Repository) -> None:
    project = installed.root / "pyproject.toml"
    project.write_text(project.read_text().replace("[]\n", '["no-such-thing"]\n'))
    assert f"call it with {installed.root}/.venv/bin/python" in refused(installed.run("deploy.py"))


def test_the_tests_run_with_their_arguments_and_exit_code(installed: Repository) -> None:
    for folder in ("unit", "contract", "load"):
        (installed.root / "tests" / folder).mkdir(parents=True)
    done = installed.run("tests/run_tests.py", "--type", "load", "--users", "50", "--duration", "2m", "--", "-x")
    assert done.stdout.endswith(f"{installed.root}/.venv tests/load --users 50 --duration 120s -x\n")
    assert installed.run("tests/run_tests.py", "--type", "unit").stdout.endswith(" tests/unit tests/contract\n")
    (installed.root / "src/pytest.py").write_text("raise SystemExit(5)\n")
    assert installed.run("tests/run_tests.py").returncode == 5
    assert "--users belongs to --type load" in refused(
        installed.run("tests/run_tests.py", "--type", "unit", "--users", "3")
    )
    assert "no tests in tests/integration" in refused(installed.run("tests/run_tests.py", "--type", "integration"))


def test_installing_for_the_tests_serves_the_server_too(installed: Repository) -> None:
    assert "Installing" not in installed.run("deploy.py", "--install-deps").stdout


def test_a_changed_list_is_installed_into_the_same_environment(installed: Repository) -> None:
    (installed.root / "requirements-fastapi.txt").write_text("# nothing, said otherwise\n")
    done = installed.run("deploy.py", "--install-deps")
    assert "Installing" in done.stdout
    assert "Making" not in done.stdout


def test_a_half_made_environment_is_made_anew(installed: Repository) -> None:
    installed.stamp.write_text('{"unfinished": true}')
    (installed.root / ".venv" / "remains").touch()
    done = installed.run("deploy.py", "--install-deps")
    assert done.returncode == 0, done.stderr
    assert "Making" in done.stdout
    assert not (installed.root / ".venv" / "remains").exists()


def test_killed_on_the_way_it_begins_anew(repository: Repository) -> None:
    command = [sys.executable, repository.root / "src/api/deploy.py", "--install-deps"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Making")
        process.send_signal(signal.SIGKILL)
    done = repository.run("deploy.py", "--install-deps")
    assert done.stdout.endswith(f"{repository.root}/.venv serve --config development\n"), done


def test_a_second_installation_waits_for_the_first(repository: Repository) -> None:
    with locked(repository.root):
        command = [sys.executable, repository.root / "src/api/deploy.py", "--install-deps"]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "Waiting for another installation.\n"
        time.sleep(0.3)
        assert waiting.poll() is None
    assert "serve --config development" in waiting.communicate()[0]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


def test_without_network_it_says_so_and_spoils_nothing(installed: Repository) -> None:
    whole = installed.stamp.read_text()
    (installed.root / "requirements-fastapi.txt").write_text(f"alembic==1.20.1 --hash=sha256:{'0' * 64}\n")
    line = refused(installed.run("deploy.py", "--install-deps"))
    assert line == (
        "roadcast: the package index cannot be reached. "
        "Check the network, https_proxy and PIP_INDEX_URL, then repeat.\n"
    )
    assert installed.stamp.read_text() == whole


def test_an_unsupported_python_is_told_in_one_line(repository: Repository) -> None:
    project = repository.root / "pyproject.toml"
    project.write_text(project.read_text().replace(">=3.11,<3.15", ">=3.98,<3.99"))
    assert "needs CPython 3.98 to 3.98, and this is CPython 3." in refused(repository.run("deploy.py"))


def test_a_locale_without_unicode_changes_nothing(repository: Repository) -> None:
    (repository.root / "pyproject.toml").write_text(f"# Straße\n{PROJECT}", encoding="utf-8")
    done = repository.run("deploy.py", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr


def test_closed_streams_do_not_give_their_numbers_to_files(repository: Repository) -> None:
    seen = repository.root / "seen"
    look = f"import os, pathlib; pathlib.Path({str(seen)!r}).write_text(os.readlink('/proc/self/fd/1'))\n"
    (repository.root / "src/roadcast/__main__.py").write_text(look)
    script = repository.root / "src/api/deploy.py"
    subprocess.run(["sh", "-c", '"$0" "$1" <&- >&- 2>&-', sys.executable, script], check=True)
    assert seen.read_text() == "/dev/null"


def test_verbose_is_handed_on(installed: Repository) -> None:
    assert installed.run("deploy.py", "--verbose").stdout.endswith(" --verbose serve --config development\n")


def test_verbose_shows_the_trace(repository: Repository) -> None:
    done = repository.run("tests/run_tests.py", "--type", "unit", "--verbose")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("roadcast: there are no tests")
