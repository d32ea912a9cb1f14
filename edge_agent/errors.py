"""The agent's tree of errors. Roots are chosen by who must act.

AgentError
|- UsageError       the person at the keyboard asked for something impossible: exit code 2
|  `- HeldError     a running agent holds what was asked for
|- DeviceError      this device is unwell (camera, disk, journal): the line technician
|  |- PictureError  one picture cannot be judged: an ERROR verdict, the loop goes on
|  |- ShortageError this computer has too little memory just now: blames nobody, tried again
|  `- LackError     this station lacks the runtime that a bundle was built for: refused until it is installed
|- BundleError      these very bytes are wrong and will stay wrong: the release engineer
|  `- TrustError    bytes nobody vouches for: refused before anything in them is parsed
|- ModelError       the model did not answer as its contract says: an ERROR verdict, counted against its bundle
|- MisfitError      recipe, model and frame do not fit: an ERROR verdict that says nothing against the bundle alone
`- HubError         the hub is unreachable or answers nonsense: tried again later
   |- HubRefusalError   the hub will never take this item: moved aside and counted
   `- TokenError    the hub does not know this device's token: whoever may enrol it again
"""


class AgentError(Exception):
    """Root of all errors a person may see: what happened, to what, and what to do next."""


class UsageError(AgentError):
    """The person asked for something impossible."""


class HeldError(UsageError):
    """A running agent holds the state folder."""


class DeviceError(AgentError):
    """Camera, disk or journal of this device is unwell."""


class PictureError(DeviceError):
    """One picture cannot be judged."""


class ShortageError(DeviceError):
    """This computer has too little memory for it now."""


class LackError(DeviceError):
    """The runtime that a bundle needs is not installed here."""


class BundleError(AgentError):
    """The content of a bundle, release or recipe is wrong."""


class TrustError(BundleError):
    """Signature, length, digest, serial or addressee is wrong."""


class ModelError(AgentError):
    """The model failed, or its output breaks the contract."""


class MisfitError(AgentError):
    """Recipe, model and frame do not fit one another."""


class HubError(AgentError):
    """The hub cannot be reached, or its answer makes no sense."""


class HubRefusalError(HubError):
    """The hub says that this item will never be accepted."""


class TokenError(HubError):
    """The hub does not know this device's token."""
