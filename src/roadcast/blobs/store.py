"""What a store of bytes promises.

A blob is seen whole or not at all, whenever a writer ends, and outlives a crash once the call that wrote it has
returned. Who writes last wins, except with `create`, where who writes first wins: the one means of agreeing that
files, HDFS and S3 have in common.

Every method may raise:
    InvalidInput: a name that `check_name` refuses.
    StoreDown: the store cannot be reached, read or written.
"""

import re
from typing import Protocol

from roadcast.errors import FieldError, InvalidInput

MAX_LENGTH = 512
_SEGMENT = r"[a-z0-9][a-z0-9._-]{0,127}"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


class Blobs(Protocol):
    """Bytes by name. A name is not at the same time the folder of other names."""

    def put(self, name: str, content: bytes) -> None:
        """Keep the content under a name, in place of what was there.

        Raises:
            Conflict: the name is a folder of others, or its folder is a blob.
        """
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Keep the content under a name that is free; False, and nothing done, where it is taken.

        Of several at once exactly one succeeds.

        Raises:
            Conflict: its folder is a blob.
        """
        ...

    def get(self, name: str) -> bytes:
        """What is kept under a name.

        Raises:
            NotFound: nothing is.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether there is something under a name."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """The full names of all in a folder and below it, sorted; without a folder, of everything."""
        ...

    def delete(self, name: str) -> None:
        """Keep nothing under a name, whether or not there was something."""
        ...


def is_name(name: str) -> bool:
    """Whether a name fits every store: lower case, because some file systems do not tell case apart."""
    return len(name) <= MAX_LENGTH and _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Refuse what is no name.

    Raises:
        InvalidInput: it is none.
    """
    if not is_name(name):
        reason = (
            f"expected parts of a-z, 0-9, '.', '_' and '-' that begin with a letter or digit, joined by '/', "
            f"{MAX_LENGTH} characters at most"
        )
        raise InvalidInput(f"blob name {name!r}: {reason}", (FieldError("name", name, reason),))
