"""From a bare Python to a running system: what `src/api/deploy.py` and `src/api/tests/run_tests.py` do.

Standard library only, and syntax that Python 3.6 reads, so that an old Python gets a line instead of a trace. What
runs in the end replaces this process: its number stays, and signals reach it.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterable, List, NoReturn

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "roadcast-install.json"

RUNTIME = "requirements-fastapi.txt"
DEVELOPMENT = "requirements-dev.txt"
HOLDS = {RUNTIME: (RUNTIME,), DEVELOPMENT: (DEVELOPMENT, RUNTIME)}
"""Which lists are installed with a list: the development list holds all of the runtime's."""

SUITES = {
    "unit": ("tests/unit", "tests/contract", "tests/docs"),
    "integration": ("tests/integration", "tests/e2e"),
    "load": ("tests/load",),
    "all": ("tests",),
}


class Refusal(Exception):
    """What cannot be done, why, and what to do about it, in one line."""


class Unchanged(Refusal):
    """pip failed before it touched .venv."""


def deploy(argv: List[str]) -> int:
    """Install where that is asked, then become `roadcast serve` or `roadcast health`; returns only a failure's code."""
    return _in_one_line(_deploy, _deploy_parser(), argv)


def run_tests(argv: List[str]) -> int:
    """Install what the tests need, then become pytest; returns only a failure's code. What follows `--` is pytest's."""
    end = argv.index("--") if "--" in argv else len(argv)
    return _in_one_line(lambda options: _run_tests(options, argv[end + 1 :]), _tests_parser(), argv[:end])


# The two commands


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"roadcast: {message} (see {self.prog} --help)\n")


def _deploy_parser() -> _Parser:
    parser = _Parser(prog="deploy.py", description="Install and run Roadcast.", allow_abbrev=False)
    parser.add_argument("--config", choices=("development", "production"), help="how to run (default: development)")
    parser.add_argument("--install-deps", action="store_true", help="install the locked dependencies into .venv first")
    parser.add_argument(
        "--health-check", action="store_true", help="alone: ask the running system how it is; else: tell it at start"
    )
    parser.add_argument("--verbose", action="store_true", help="show what pip says, and traces of errors")
    return parser


def _tests_parser() -> _Parser:
    about = "Run Roadcast's tests; what follows -- goes to pytest."
    parser = _Parser(prog="run_tests.py", description=about, allow_abbrev=False)
    parser.add_argument("--type", choices=tuple(SUITES), default="all", help="which tests (default: all)")
    parser.add_argument("--users", type=_users, help="users of the load test")
    parser.add_argument("--duration", type=_seconds, help="length of the load test, such as 120s or 2m")
    parser.add_argument("--verbose", action="store_true", help="show what pip says, and traces of errors")
    return parser


def _users(text: str) -> int:
    if not re.match(r"[1-9]\d*$", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of users from 1 on")
    return int(text)


def _seconds(text: str) -> int:
    found = re.match(r"([1-9]\d*)(s|m|h)?$", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a duration such as 120s or 2m")
    return int(found.group(1)) * {"m": 60, "h": 3600}.get(found.group(2), 1)


def _in_one_line(act: Callable[[argparse.Namespace], int], parser: _Parser, argv: List[str]) -> int:
    _open_closed_streams()
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(str(ROOT))
        _check_python()
        return act(options)
    except (Refusal, OSError) as error:
        if options.verbose:
            traceback.print_exc()
        sys.stderr.write(f"roadcast: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("roadcast: interrupted; the next run does this step again.\n")
        return 130


def _open_closed_streams() -> None:
    """Lead a standard stream that the caller closed to nowhere: else the next file that is opened takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _end(signum: int, _frame: object) -> NoReturn:
    """Unwind, so that an installation ends with us."""
    sys.exit(128 + signum)


def _deploy(options: argparse.Namespace) -> int:
    only_health = options.health_check and not options.config and not options.install_deps
    if options.install_deps:
        _install(RUNTIME, options.verbose)
    in_venv = options.install_deps or (only_health and _is_installed(RUNTIME))
    if not in_venv:
        _check_dependencies()
    command = ["--verbose"] if options.verbose else []
    command += ["health"] if only_health else ["serve", "--config", options.config or "development"]
    if options.health_check and not only_health:
        command.append("--health-check")
    return _become(str(PYTHON) if in_venv else sys.executable, ["-m", "roadcast", *command])


def _run_tests(options: argparse.Namespace, passed_on: List[str]) -> int:
    load = [] if options.users is None else ["--users", str(options.users)]
    load += [] if options.duration is None else ["--duration", f"{options.duration}s"]
    if load and options.type not in ("load", "all"):
        raise Refusal(f"{load[0]} belongs to --type load, not to --type {options.type}.")
    folders = [folder for folder in SUITES[options.type] if (ROOT / folder).is_dir()]
    if not folders:
        raise Refusal(f"there are no tests in {' or '.join(SUITES[options.type])}.")
    _install(DEVELOPMENT, options.verbose)
    notes = [] if os.access(str(ROOT), os.W_OK) else ["-p", "no:cacheprovider"]  # pytest's, of what failed
    return _become(str(PYTHON), ["-m", "pytest", *folders, *load, *notes, *passed_on])


def _become(python: str, arguments: List[str]) -> int:
    """Replace this process. The code of this folder runs, whatever else `python` has installed."""
    inherited = os.environ.get("PYTHONPATH")
    path = f"{ROOT / 'src'}{os.pathsep}{inherited}" if inherited else str(ROOT / "src")
    sys.stdout.flush()
    os.execve(python, [python, *arguments], dict(os.environ, PYTHONPATH=path))  # noqa: S606 - no shell is wanted


# The Python that calls


def _check_python() -> None:
    found = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    if os.name != "posix" or found is None:
        raise Refusal("needs Linux or macOS; on Windows run it in WSL.")
    oldest, bound = int(found.group(1)), int(found.group(2))
    this = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if platform.python_implementation() != "CPython" or not (3, oldest) <= sys.version_info[:2] < (3, bound):
        raise Refusal(f"needs CPython 3.{oldest} to 3.{bound - 1}, and this is {this}. Call it with such a python3.")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Refusal(f"needs CPython with its global lock, and {this} is free-threaded. Call it with another python3.")


def _check_dependencies() -> None:
    missing = _missing()
    if not missing:
        return
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    remedy = f"Add --install-deps, or run: {sys.executable} -m pip install -r {RUNTIME}"
    if _is_installed(RUNTIME):
        remedy = f"They are in .venv: add --install-deps, or call it with {PYTHON}"
    raise Refusal(f"{sys.executable} lacks {shown}. {remedy}")


def _missing() -> List[str]:
    """The dependencies that the calling interpreter lacks."""
    import importlib.metadata  # noqa: PLC0415 - newer than 3.6
    import tomllib  # noqa: PLC0415 - newer than 3.6

    def is_missing(name: str) -> bool:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return True
        return False

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0] for requirement in wanted]
    return [name for name in names if is_missing(name)]


# .venv


def _install(requirements: str, verbose: bool) -> None:
    """Bring .venv to what `requirements` locks: one process at a time, and nothing where that is done."""
    if _is_installed(requirements):
        return
    with _only_one() as lock:
        if _is_installed(requirements):
            return
        if _must_be_made():
            _make_venv(verbose, lock)
        before = _read_stamp()
        _write_stamp(dict(before, unfinished=True))
        try:
            _install_list(requirements, verbose, lock)
        except Unchanged:
            _write_stamp(before)
            raise
        _write_stamp(dict(_maker(), installed={name: _digest(name) for name in HOLDS[requirements]}))
        _say("Installed.")


@contextlib.contextmanager
def _only_one() -> Generator[int, None, None]:
    """A lock on the repository's folder, which needs no file. pip inherits it: an orphaned one is waited for."""
    import fcntl  # noqa: PLC0415 - not on Windows, which gets a line

    lock = os.open(str(ROOT), os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Waiting for another installation.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _maker() -> Dict[str, Any]:
    """What a .venv depends on: the Python that made it and the folder it is in."""
    return {"python": sys.implementation.cache_tag, "folder": str(ROOT)}


def _is_whole(stamp: Dict[str, Any]) -> bool:
    return PYTHON.exists() and not stamp.get("unfinished") and dict(stamp, **_maker()) == stamp


def _is_installed(requirements: str) -> bool:
    stamp = _read_stamp()
    return _is_whole(stamp) and stamp.get("installed", {}).get(requirements) == _digest(requirements)


def _must_be_made() -> bool:
    """Whether .venv is missing, half-made, another Python's or moved. One that its user made serves as well."""
    stamp = _read_stamp()
    return not _is_whole(stamp) if stamp else not _serves()


def _serves() -> bool:
    question = "import sys; print(sys.implementation.cache_tag, sys.prefix)"
    try:
        answer = subprocess.check_output([str(PYTHON), "-c", question], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.decode().strip() == f"{sys.implementation.cache_tag} {VENV}"


def _read_stamp() -> Dict[str, Any]:
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write_stamp(stamp: Dict[str, Any]) -> None:
    new = STAMP.with_suffix(".new")
    try:
        new.write_text(json.dumps(stamp), encoding="utf-8")
        new.replace(STAMP)
    except OSError as error:
        raise _unwritable(error) from error


def _make_venv(verbose: bool, lock: int) -> None:
    options = [] if importlib.util.find_spec("ensurepip") else ["--without-pip"]
    if options and not importlib.util.find_spec("pip"):
        remedy = "Install them, for example with: apt install python3-venv"
        raise Refusal(f"{sys.executable} has neither ensurepip nor pip. {remedy}")
    _clear_venv()
    _say(f"Making {VENV} with Python {platform.python_version()}.")
    python = getattr(sys, "_base_executable", None) or sys.executable
    done = subprocess.run(
        [python, "-m", "venv", *options, str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        pass_fds=(lock,),
    )
    output = done.stdout.decode(errors="replace")
    if verbose:
        sys.stdout.write(output)
    if done.returncode:
        raise Refusal(f"{python} cannot make {VENV}: {_last_line(output)}")
    _write_stamp(_maker())


def _clear_venv() -> None:
    try:
        if VENV.is_symlink():
            VENV.unlink()
        elif VENV.exists():
            shutil.rmtree(str(VENV))
        VENV.mkdir()
    except OSError as error:
        raise _unwritable(error) from error
    _write_stamp({"unfinished": True})


def _unwritable(error: OSError) -> Refusal:
    return Refusal(f"cannot write {VENV}: {error.strerror}. Make {ROOT} writable, or copy it to a folder that is.")


def _install_list(requirements: str, verbose: bool, lock: int) -> None:
    count = len(re.findall(r"(?m)^[\w.-]+(\[.*\])?==", (ROOT / requirements).read_text(encoding="utf-8")))
    _say(f"Installing up to {count} packages into .venv, which takes a minute or two.")
    _pip(["--require-hashes", "--only-binary", ":all:", "-r", requirements], verbose, lock)
    _pip(["--no-deps", "--no-build-isolation", "--no-index", "-e", "."], verbose, lock)


def _pip(arguments: List[str], verbose: bool, lock: int) -> None:
    command = [*_pip_command(), "install", "--disable-pip-version-check", "--no-input", *arguments]
    elsewhere = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        pass_fds=(lock,),
        env={**environment, "PIP_USER": "0"},  # what a user's own settings put elsewhere, .venv would lack
    )
    try:
        output = "".join(_shown(process.stdout or (), verbose))
        if process.wait():
            raise (Refusal if "Installing collected" in output else Unchanged)(_why(output))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _pip_command() -> List[str]:
    """The pip of .venv; where it has none, the calling interpreter's."""
    has_pip = any(VENV.glob("lib/python3.*/site-packages/pip"))
    return [str(PYTHON), "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", str(PYTHON)]


def _shown(lines: Iterable[str], verbose: bool) -> Iterable[str]:
    """The lines of pip, shown as they pass: all when verbose, else a sign of life."""
    collected = 0
    for line in lines:
        collected += line.startswith("Collecting ")
        if verbose:
            sys.stdout.write(line)
        elif line.startswith("Collecting ") and collected % 10 == 0:
            _say(f"  {collected} found")
        elif line.startswith("Installing collected"):
            _say("  unpacking")
        yield line


def _why(output: str) -> str:
    """The one line that tells why pip failed."""
    if re.search(r"NewConnectionError|NameResolution|ConnectTimeout|ReadTimeout|ProxyError|SSLError", output):
        return "the package index cannot be reached. Check the network, https_proxy and PIP_INDEX_URL, then repeat."
    absent = re.search(r"No matching distribution found for (\S+)", output)
    if absent:
        this = f"Python {platform.python_version()} on {sysconfig.get_platform()}"
        remedy = "Check the network and PIP_*, or call another python3."
        return f"the package index shows no wheel of {absent.group(1)} for {this}. {remedy}"
    return f"pip failed (--verbose shows all): {_last_line(output)}"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return ([line for line in lines if line.lower().startswith("error")] or lines or ["it said nothing."])[-1]


def _digest(requirements: str) -> str:
    return hashlib.sha256((ROOT / requirements).read_bytes()).hexdigest()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
