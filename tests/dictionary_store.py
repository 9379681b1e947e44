"""JAX's coordination client, in one process: a dictionary on which threads wait."""

import collections
import threading


class DictionaryStore:
    """What JAX's coordination client does, in one process.

    Attributes:
      count: how many processes share it.
      absent: how many of them never arrive at a barrier, which times out as soon as all others have arrived.
    """

    count = 2
    absent = 0

    def __init__(self):
        self.values = {}
        self.arrived = collections.Counter()
        self.changed = threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            if key in self.values:
                raise RuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value
            self.changed.notify_all()

    def key_value_try_get(self, key):
        return self.values[key]

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise RuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self.values[key]

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in self.values.items() if name.startswith(f"{key}/")]

    def key_value_delete(self, key):
        for name in [name for name in self.values if name == key or name.startswith(f"{key}/")]:
            del self.values[name]

    def wait_at_barrier(self, barrier_id, timeout_in_ms):
        with self.changed:
            self.arrived[barrier_id] += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.arrived[barrier_id] >= self.count - self.absent, timeout_in_ms / 1000)
            if self.arrived[barrier_id] < self.count:
                raise RuntimeError(f"DEADLINE_EXCEEDED: {barrier_id}")
