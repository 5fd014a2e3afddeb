"""PostgreSQL refuses to run as root and as a user without a name: how its programs are run all the same."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roadcast.errors import StartError

NOBODY = 65534
_NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs the programs: `prefix` goes before each command, `user` is whom to become (None: nobody else)."""

    prefix: tuple[str, ...] = ()
    user: int | None = None

    def run(self, command: Sequence[str | Path], given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program to its end with `given` as its input."""
        return subprocess.run(
            [*self.prefix, *command],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            user=self.user,
            group=self.user,
            extra_groups=self._groups,
            process_group=0,
        )

    def spawn(self, command: Sequence[str | Path], folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a program in `folder`, in a process group that a terminal's Ctrl-C does not reach."""
        with log.open("ab") as output:
            if self.user is not None:
                os.chown(output.fileno(), self.user, -1)
            return subprocess.Popen(
                [*self.prefix, *command],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self.user,
                group=self.user,
                extra_groups=self._groups,
                process_group=0,
            )

    def take(self, folder: Path) -> None:
        """Make the files in `folder` the programs' own, where root finds them another user's."""
        owner = os.geteuid() if self.user is None else self.user
        if os.geteuid() != 0 or folder.stat().st_uid == owner:
            return
        for path in (*folder.rglob("*"), folder):
            os.chown(path, owner, owner, follow_symlinks=False)

    @property
    def _groups(self) -> list[int] | None:
        return None if self.user is None else []


def identity(program: Path, folder: Path) -> Identity:
    """Who runs `program` on files in `folder`/postgres.

    As root: the user who owns them; if that is root, a user namespace in which root's files belong to `nobody`; where
    the system forbids that, `nobody` itself. As a user without a name, which initdb refuses: that namespace.

    Raises:
        StartError: where none of these is possible.
    """
    user = os.geteuid()
    if user != 0 and _has_name(user):
        return Identity()
    for who in _others(folder / "postgres"):
        if _can_run(who, program, folder):
            return who
    if user != 0:
        raise StartError(
            f"PostgreSQL refuses to run as user {user}, who has no name.",
            remedy="Run as a user who is listed in /etc/passwd.",
        )
    raise StartError(
        f"PostgreSQL refuses to run as root, and the user nobody may not enter {folder} or {program.parent}.",
        remedy="Run as another user, or move the folder to where all may enter, such as /srv.",
    )


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _others(files: Path) -> Iterator[Identity]:
    """Whom to try in our place, the best first."""
    is_root = os.geteuid() == 0
    if is_root and files.exists() and files.stat().st_uid != 0:
        yield Identity(user=files.stat().st_uid)
    if shutil.which(_NAMESPACE[0]):
        yield Identity(prefix=_NAMESPACE)
    if is_root:
        yield Identity(user=NOBODY)


def _can_run(who: Identity, program: Path, folder: Path) -> bool:
    try:
        return who.run(["/bin/sh", "-c", 'cd "$0" && exec "$1" --version', folder, program]).returncode == 0
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """None of our secrets, nothing of libpq's, messages in English."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
