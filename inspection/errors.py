"""The tree of errors. Roots are chosen by who must act.

EscapementError
|- UsageError            the person asked for something impossible: exit code 2
|- InputError            a picture, a label or a file is bad: it goes to quarantine, or the caller is told
|  |- PictureError       not a picture we accept (magic bytes, size, truncated, bomb)
|  `- LabelError         a class nobody knows, a label configuration changed by hand
|- IntegrityError        what we keep contradicts itself; somebody must look
|  |- MissingPictureError
|  |- LeakError          one part, or near-duplicates, on both sides of a split
|  `- AppendOnlyError    an attempt to change history
|- BundleError           a bundle or its signature is wrong
|- ServerError           a server is unreachable or answers nonsense: retry, or look at that server
|- LeaseError            another process holds the lease, or took it over
`- EnvironmentTroubleError  port taken, program missing, disk full
"""


class EscapementError(Exception):
    """Root of all errors a person may see: what happened, to what, and what to do next."""


class UsageError(EscapementError):
    """The person asked for something impossible."""


class InputError(EscapementError):
    """Bad input; ``code`` is a short stable word that is counted."""

    def __init__(self, message: str, code: str = "bad_input") -> None:
        super().__init__(message)
        self.code = code


class PictureError(InputError):
    """Not a picture we accept."""


class LabelError(InputError):
    """A label or a label configuration we cannot use."""


class IntegrityError(EscapementError):
    """What we keep contradicts itself."""


class MissingPictureError(IntegrityError):
    """A picture the records name is not in the blob store."""


class LeakError(IntegrityError):
    """One part, or near-duplicate pictures, on both sides of a split."""


class AppendOnlyError(IntegrityError):
    """An attempt to change or delete a row of an append-only table."""


class BundleError(EscapementError):
    """A bundle or its signature is wrong."""


class ServerError(EscapementError):
    """A server is unreachable or answers nonsense."""


class LeaseError(EscapementError):
    """The lease is held by another process, or was taken over."""


class EnvironmentTroubleError(EscapementError):
    """Something about this machine stands in the way."""
