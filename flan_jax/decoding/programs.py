"""The compiled programs of a decoder, and the arrays on the devices that they advance.

A decoder has B slots, each with one row of N candidates. All slots write keys and values at the same position of a
ring, whatever the age of their rows, so that a slot may get a new row at any step without a scatter into the cache. A
row attends to the last `age` positions alone.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int32

from flan_jax.decoding.lengths import MOST_LENGTHS, best_lengths
from flan_jax.decoding.search import Search, State
from flan_jax.models.incremental import Cache, Cross, IncrementalNetwork
from flan_jax.models.partitioning import call_per_device
from flan_jax.shapes import DECODER_START_ID, Params
from flan_jax.sharding import ROWS, row_shards

_ENCODED_SHARE = 8  # A slot waits until an eighth of them is free: encoding one row at a time would be slow.
_ROWS_PER_LENGTH = 4  # Per slot.


class Inputs(NamedTuple):
    """The encoded inputs of all slots."""

    cross: Cross
    is_input_BS: Bool[Array, "B S"]


class Slots(NamedTuple):
    """All that a step changes.

    Attributes:
      clock: Steps since the start, int32 [].
      age_B: The tokens that each slot's row has, int32 [B].
      is_active_B: Whether a slot has a row that is not done, bool [B].
      next_BN: The tokens to be fed next, int32 [B, N].
      search: The strategy's state.
      cache: The network's cache.
    """

    clock: jax.Array
    age_B: jax.Array
    is_active_B: jax.Array
    next_BN: jax.Array
    search: State
    cache: Cache


@final
class Programs:
    """The compiled programs of one network, strategy and number of slots; parameters are an argument.

    Attributes:
      num_slots: B.
      num_encoded: Rows that are encoded together, E.
      count: Programs that were compiled.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        search: Search,
        *,
        num_slots: int,
        mesh: Mesh,
        within: Callable[[], contextlib.AbstractContextManager[Any]],
    ):
        """Compiles nothing yet.

        Args:
          network: The functions of the network.
          search: The strategy, bound to a length.
          num_slots: B, a multiple of the devices that rows are sharded over.
          mesh: The devices.
          within: Returns the context in which the network's functions are traced.
        """
        self.search = search
        self.num_slots = num_slots
        self.shards = row_shards(mesh)
        per_shard = max(1, num_slots // self.shards // _ENCODED_SHARE)
        self.num_encoded = per_shard * self.shards
        self._network = network
        self._within = within
        self._rows = NamedSharding(mesh, PartitionSpec(ROWS))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        # Pinned, so that the outputs of one program are what the next one was compiled for.
        slots = dict.fromkeys(Slots._fields, self._rows) | {"clock": self._replicated}
        self._slots: Any = Slots(**cast(Any, slots))
        self._lengths: tuple[int, ...] = ()
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    @property
    def count(self) -> int:
        """Programs that were compiled."""
        return len(self._compiled)

    def lengths_for(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """Returns the encoder lengths for rows of these lengths, in ascending order.

        The first call chooses them; later ones add one only for longer inputs, with room for more.
        """
        longest = max(lengths)
        if not self._lengths:
            # A length must have enough rows to pay for its compilation.
            count = min(MOST_LENGTHS, 1 + len(lengths) // (_ROWS_PER_LENGTH * self.num_slots))
            self._lengths = best_lengths(lengths, count=count)
        elif longest > self._lengths[-1]:
            self._lengths += best_lengths([max(longest, self._lengths[-1] * 2)], count=1)
        needed = {min(length for length in self._lengths if length >= each) for each in lengths}
        return tuple(sorted(needed))

    def empty(self, length: int) -> tuple[Inputs, Slots]:
        """Returns slots without rows, for inputs of up to `length` tokens."""

        B, T, N = self.num_slots, self.search.length, self.search.strategy.num_candidates
        shape: Any = jax.ShapeDtypeStruct  # The fields are arrays below.
        inputs = Inputs(cross=self._network.cross_shapes(B, length), is_input_BS=shape((B, length), jnp.bool_))
        slots = Slots(
            clock=shape((), jnp.int32),
            age_B=shape((B,), jnp.int32),
            is_active_B=shape((B,), jnp.bool_),
            next_BN=shape((B, N), jnp.int32),
            search=jax.eval_shape(self.search.start, shape((B,), jnp.uint32)),
            cache=self._network.cache_shapes(B, T * N),
        )

        # Not a program of its own: values of the host, of which every process has all.
        def on_mesh(shape: jax.ShapeDtypeStruct) -> jax.Array:
            where = self._rows if shape.shape else self._replicated
            zeros = np.broadcast_to(np.zeros((), shape.dtype), shape.shape)  # Of any size, one number in memory.
            return jax.make_array_from_callback(shape.shape, where, lambda index: zeros[index])

        # `admit` sets the values of a slot.
        empty: tuple[Inputs, Slots] = jax.tree.map(on_mesh, (inputs, slots))
        return empty

    def admit(
        self,
        params: Params,
        inputs: Inputs,
        slots: Slots,
        *,
        tokens_ES: np.ndarray,
        lengths_E: np.ndarray,
        slot_E: np.ndarray,
        number_B: np.ndarray,
    ) -> tuple[Inputs, Slots]:
        """Returns the slots with E new rows, which are encoded first.

        Args:
          params: The network's parameters.
          inputs: Donated.
          slots: Donated.
          tokens_ES: The rows' inputs, padded to the length of `inputs`.
          lengths_E: Their lengths.
          slot_E: The slot of each, counted on its device; -1 for a row of padding.
          number_B: The number of each slot's row in the data; below 0 for slots that keep their row.
        """

        def admit(params: Params, inputs: Inputs, slots: Slots, *new: jax.Array) -> tuple[Inputs, Slots]:
            tokens_ES, lengths_E, slot_E, number_B = new
            is_input_ES = jnp.arange(tokens_ES.shape[1])[None] < lengths_E[:, None]
            cross = self._network.encode(params, tokens_ES, is_input_ES)
            inputs = jax.tree.map(
                lambda old, new: _insert(old, new, slot_E), inputs, Inputs(cross=cross, is_input_BS=is_input_ES)
            )
            is_new_B = number_B >= 0
            start = self.search.start(jnp.maximum(number_B, 0).astype(jnp.uint32))
            return inputs, slots._replace(
                age_B=jnp.where(is_new_B, 0, slots.age_B),
                is_active_B=slots.is_active_B | is_new_B,
                next_BN=jnp.where(is_new_B[:, None], DECODER_START_ID, slots.next_BN),
                search=_where(is_new_B, start, slots.search),
            )

        lengths = inputs.is_input_BS.shape[1:]
        program = self._program("admit", admit, lengths=lengths, donated=(1, 2), outputs=(self._rows, self._slots))
        new = (tokens_ES, lengths_E, slot_E, number_B)
        return program(params, inputs, slots, *map(self._on_rows, new))

    def decode(
        self, params: Params, inputs: Inputs, slots: Slots, *, steps: int, active: int, stopped_BN: np.ndarray
    ) -> tuple[Slots, dict[str, jax.Array]]:
        """Returns the slots after some steps, and a report of all rows, which every process can read.

        Args:
          params: The network's parameters.
          inputs: The encoded inputs.
          slots: Donated.
          steps: The largest number of steps.
          active: The number of active rows at which to return earlier.
          stopped_BN: The candidates that ended by a stop string since the last call.
        """

        def decode(
            params: Params, inputs: Inputs, slots: Slots, steps: jax.Array, active: jax.Array, stopped_BN: jax.Array
        ) -> tuple[Slots, dict[str, jax.Array]]:
            def goes_on(carry: tuple[jax.Array, Slots]) -> jax.Array:
                step, slots = carry
                return (step < steps) & (jnp.sum(slots.is_active_B) > active)

            def body(carry: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
                step, slots = carry
                return step + 1, self._step(params, inputs, slots)

            if "ended" in slots.search:
                ended_BN = slots.search["ended"] | stopped_BN
                slots = slots._replace(
                    search=slots.search | {"ended": ended_BN},
                    is_active_B=slots.is_active_B & ~jnp.all(ended_BN, axis=1),
                )
            slots = jax.lax.while_loop(goes_on, body, (jnp.int32(0), slots))[1]
            report = dict(self.search.report(slots.search)) | {"age": slots.age_B, "is_active": slots.is_active_B}
            return slots, report

        lengths, outputs = inputs.is_input_BS.shape[1:], (self._slots, self._replicated)
        program = self._program("decode", decode, lengths=lengths, donated=(2,), outputs=outputs)
        limits = (np.int32(steps), np.int32(active))
        return program(params, inputs, slots, *limits, self._on_rows(stopped_BN))

    def grow(self, inputs: Inputs, length: int) -> Inputs:
        """Returns the encoded inputs, padded so that longer ones fit."""
        before = inputs.is_input_BS.shape[1]

        def grow(inputs: Inputs) -> Inputs:
            return jax.tree.map(lambda x: jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, length - before),)), inputs)

        return self._program("grow", grow, lengths=(before, length), donated=(), outputs=self._rows)(inputs)

    def _step(self, params: Params, inputs: Inputs, slots: Slots) -> Slots:
        T = self.search.length
        position = slots.clock % T
        behind_T = (position - jnp.arange(T)) % T
        is_own_B1T1 = (behind_T[None] <= slots.age_B[:, None])[:, None, :, None]
        mask_BNTN = self.search.descends(slots.search, position) & is_own_B1T1
        B, N = slots.next_BN.shape
        logits_BNV, cache = self._network.step(
            params,
            slots.next_BN,
            cache=slots.cache,
            cross=inputs.cross,
            mask_B1NC=mask_BNTN.reshape(B, 1, N, T * N),
            cross_mask_B11S=inputs.is_input_BS[:, None, None],
            position=position,
        )
        search, next_BN, is_done_B = self.search.advance(slots.search, logits_BNV, age_B=slots.age_B, position=position)
        return Slots(
            clock=slots.clock + 1,
            age_B=slots.age_B + slots.is_active_B,
            is_active_B=slots.is_active_B & ~is_done_B,
            next_BN=next_BN,
            # A row that is done waits to be read.
            search=_where(slots.is_active_B, search, slots.search),
            cache=cache,
        )

    def _program(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        lengths: tuple[int, ...],
        donated: tuple[int, ...],
        outputs: Any,
    ) -> Callable[..., Any]:
        key = (name, *lengths)
        if key not in self._compiled:
            compiled = jax.jit(function, donate_argnums=donated, out_shardings=outputs)

            def call(*arguments: Any) -> Any:
                with self._within():
                    return compiled(*arguments)

            self._compiled[key] = call
        return self._compiled[key]

    def _on_rows(self, array: np.ndarray) -> jax.Array:
        """Returns an array of which every process has all rows on the mesh."""
        return jax.make_array_from_callback(array.shape, self._rows, lambda index: array[index])


def _insert(old_BX: jax.Array, new_EX: jax.Array, slot_E: Int32[Array, " E"]) -> jax.Array:
    """Returns the old rows with the new ones in their slots, counted on each device."""

    def insert(old: jax.Array, new: jax.Array, slots: jax.Array) -> jax.Array:
        def put(row: jax.Array, old: jax.Array) -> jax.Array:
            slot = jnp.maximum(slots[row], 0)
            kept = jax.lax.dynamic_slice_in_dim(old, slot, 1)
            value = jnp.where(slots[row] < 0, kept, jax.lax.dynamic_slice_in_dim(new, row, 1))
            return jax.lax.dynamic_update_slice_in_dim(old, value, slot, axis=0)

        return jax.lax.fori_loop(0, new.shape[0], put, old)

    names = ("batch", *(None,) * (old_BX.ndim - 1))
    return call_per_device(insert, (old_BX, new_EX, slot_E), names=(names, names, ("batch",)), out_names=names)


def _where(is_new_B: Bool[Array, " B"], new: State, old: State) -> State:
    return jax.tree.map(lambda new, old: jnp.where(is_new_B.reshape(-1, *(1,) * (new.ndim - 1)), new, old), new, old)
