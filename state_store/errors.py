"""What can go wrong with the store, as a tree.

* StateStoreError
  x StoreUnavailable      cannot be reached, or is not ready: worth trying again
    x SlotMoved           another node of the cluster has these keys, or will have them soon: nothing was done
  x StoreFull             no memory or disk left: nothing of the request was written
  x BadUrl                the URL or namespace cannot be used
  x WrongPassword         the server refused the user, the password or the permission
  x WrongServer           not a Redis that this fleet can live in
  x FleetMissing          the namespace holds no fleet yet
  x FleetMismatch         the namespace holds a fleet made with other values
  x PartitionSealed       a partition contradicts itself: a person has to look
  x PartitionMoved        a partition's assets are on their way to the next generation: wait for it
  x MoveRefused           the number of partitions cannot be changed like this, or not now
  x PartitionHeld         a partition has an owner who would write over what is asked for
  x BadBackup             a backup file is damaged, or cannot be read or written
  x BackupRefused         a backup does not fit what the partition's log still holds
  x BadTick               a producer was given a tick that can never be accepted
  x PartitionFull         a partition's backlog stayed at its limit for too long
  x ProducerFenced        a newer producer of the same name took over
  x ServerNotFound        no Redis program on this machine
  x ServerNotStarted      the embedded Redis did not come up (port or directory in use, ...)

Each message is one line: what, where (the password masked), and the remedy.
"""


class StateStoreError(Exception):
    """The base of every error that this package raises on purpose."""


class StoreUnavailable(StateStoreError):
    """The server cannot be reached or is not ready; the same call may succeed later."""


class SlotMoved(StoreUnavailable):
    """Another node has the keys; nothing was done. `node` is where, if that was said, and `asking` if only for now."""

    def __init__(self, message: str, slot: int = 0, node: tuple[str, int] | None = None, asking: bool = False):
        super().__init__(message)
        self.slot, self.node, self.asking = slot, node, asking


class StoreFull(StateStoreError):
    """The server refused a write for want of memory or disk; nothing was written."""


class BadUrl(StateStoreError):
    """The URL or the namespace cannot be used as given."""


class WrongPassword(StateStoreError):
    """The server refused the user, the password or the permission."""


class WrongServer(StateStoreError):
    """The server lacks what the fleet needs, or answered in an unknown way."""


class FleetMissing(StateStoreError):
    """The namespace holds no fleet yet."""


class FleetMismatch(StateStoreError):
    """The namespace holds a fleet that was made with other values."""


class PartitionSealed(StateStoreError):
    """A partition's keys contradict each other, so nobody may write there until a person has looked."""


class PartitionMoved(StateStoreError):
    """A partition's assets are on their way to, or in, the next generation of partitions."""


class MoveRefused(StateStoreError):
    """The number of partitions cannot be changed like this, or not now."""


class PartitionHeld(StateStoreError):
    """A partition has a live owner."""


class BadBackup(StateStoreError):
    """A backup file is damaged, or cannot be read or written."""


class BackupRefused(StateStoreError):
    """A backup is whole, but the partition could not go on from it without a gap."""


class BadTick(StateStoreError, ValueError):
    """A tick that no worker could ever accept."""


class PartitionFull(StateStoreError):
    """A partition's backlog stayed at its limit; no tick was dropped to make room."""


class ProducerFenced(StateStoreError):
    """A newer producer with the same name took over this one's sequence."""


class ServerNotFound(StateStoreError):
    """This machine has no Redis program that could be embedded."""


class ServerNotStarted(StateStoreError):
    """The embedded Redis did not come up."""
