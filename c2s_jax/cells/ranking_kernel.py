"""The loops that rank cells, one cell after another, in about linear time.

1. Between the least and the greatest value of the cell lie `SLOTS` slots. Nearly always a slot holds entries of one
   value, a group of ties; counting them tells where each group begins.
2. A tie key is uniform, so it tells about where in its group an entry will stand: beginning + key / 2⁶⁴ · size. In a
   slot of several values the value takes the key's part.
3. Entries go to the bucket of that position, four positions a bucket, as words of 32 bits: the position's fraction,
   then the place in the cell. A network sorts the buckets.
4. Neighbours that only the place tells apart are compared by their whole values and keys.

A cell that overfills a bucket, or is too long for its places to fit into words, is sorted by radix. Results depend on
values and keys alone, not on which way was taken.
"""

from typing import NamedTuple

import numpy as np

from c2s_jax.jit import compiled

from .sorting_network import DEPTH, LANES, sort_columns

SLOTS = 1024
LONGEST = 1 << 20
"""Entries of the longest cell that is sorted in buckets."""
CHUNK = LANES * DEPTH + LANES
"""Words of `LANES` buckets side by side, and after them how full each is, times `LANES`."""

_COUNTERS = 4
"""A slot is counted in turn by several counters, or each addition would wait for the one before."""

_U32, _U64 = np.uint32, np.uint64
_ONES = np.uint32(0xFFFFFFFF)
_HIGH, _LOW = np.uint64(0xFFFFFFFF00000000), np.uint64(0x00000000FFFFFFFF)


class Scratch(NamedTuple):
    """Memory for the longest cell, of n entries: per entry, per slot, and the buckets."""

    slot: np.ndarray  # uint16 [n]
    entry: np.ndarray  # uint64 [n]; tie key, then bucket and word
    group: np.ndarray  # uint64 [n]; beginning and size of the entry's group
    word: np.ndarray  # uint32 [n + DEPTH]
    spare: np.ndarray  # uint32 [n]
    counts: np.ndarray  # uint32 [SLOTS · _COUNTERS]
    groups: np.ndarray  # uint64 [SLOTS]
    seen: np.ndarray  # [SLOTS]; a code of the slot
    buckets: np.ndarray  # uint32 [chunks · CHUNK]


@compiled
def rank_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    codes: np.ndarray,
    largest: np.uint64,
    floats: bool,
    values: np.ndarray,
    cell_keys: np.ndarray,
    gene_keys: np.ndarray,
    ranked_indptr: np.ndarray,
    ranked_genes: np.ndarray,
    ranked_values: np.ndarray,
) -> int:
    """Write genes and values of each cell by (falling code, key, place); the number of the first bad row, or −1.

    `codes` [nnz] (uint32 or uint64) must be within 1 … `largest` and `indices` below the length of `gene_keys`,
    or the row is bad. `floats` says that codes are the bits of floats. `ranked_indptr` says how many entries of
    each row are wanted.
    """
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    s = _scratch(longest, codes)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        if start == stop:
            continue
        row_codes, genes, row_values = codes[start:stop], indices[start:stop], values[start:stop]
        least, greatest = _extent(row_codes)
        if least < 1 or greatest > largest or _greatest_gene(genes) >= len(gene_keys):
            return row
        places = _bucket_row(row_codes, least, greatest, floats, genes, gene_keys, cell_keys[row], s)
        if not places:
            places = _radix_row(row_codes, greatest, genes, gene_keys, cell_keys[row], s)
        wanted = ranked_indptr[row + 1] - ranked_indptr[row]
        out_genes = ranked_genes[ranked_indptr[row] : ranked_indptr[row + 1]]
        out_values = ranked_values[ranked_indptr[row] : ranked_indptr[row + 1]]
        for i in range(wanted):
            place = s.word[i] & places
            out_genes[i] = genes[place]
            out_values[i] = row_values[place]
    return -1


@compiled
def _scratch(n: int, codes: np.ndarray) -> Scratch:
    chunks = min(n, LONGEST) // (4 * LANES) + 1
    return Scratch(
        np.empty(n, np.uint16),
        np.empty(n, np.uint64),
        np.empty(n, np.uint64),
        np.empty(n + DEPTH, np.uint32),
        np.empty(n, np.uint32),
        np.empty(SLOTS * _COUNTERS, np.uint32),
        np.empty(SLOTS, np.uint64),
        np.empty(SLOTS, codes.dtype),
        np.empty(chunks * CHUNK, np.uint32),
    )


@compiled
def _extent(codes: np.ndarray) -> tuple[int, int]:
    least = greatest = codes[0]
    for i in range(len(codes)):
        least, greatest = min(least, codes[i]), max(greatest, codes[i])
    return least, greatest


@compiled
def _greatest_gene(genes: np.ndarray) -> np.uint32:
    greatest = _U32(0)
    for i in range(len(genes)):
        greatest = max(greatest, _U32(genes[i]))  # a negative number becomes a large one
    return greatest


@compiled
def _mix(x: np.uint64) -> np.uint64:
    """`ranking.mix` of one number."""
    x ^= x >> _U64(30)
    x *= _U64(0xBF58476D1CE4E5B9)
    x ^= x >> _U64(27)
    x *= _U64(0x94D049BB133111EB)
    x ^= x >> _U64(31)
    return x


@compiled
def _bucket_row(
    codes: np.ndarray,
    least: int,
    greatest: int,
    floats: bool,
    genes: np.ndarray,
    gene_keys: np.ndarray,
    cell_key: np.uint64,
    s: Scratch,
) -> np.uint32:
    """Put the entries in rank order, as words into `s.word`; the bits of a word that are its place.

    No bits (0) if the buckets do not hold the cell.
    """
    n = len(codes)
    if n > LONGEST:
        return _U32(0)
    shift, place_bits = _U64(0), _U64(1)
    while _U64(n - 1) >> place_bits:
        place_bits += _U64(1)
    places = (_U64(1) << place_bits) - _U64(1)
    slots = _slots_of_numbers(codes, s) if floats else 0
    if not slots:
        while _U64(greatest - least) >> shift >= _U64(SLOTS):
            shift += _U64(1)
        slots = _slots_of_ranges(codes, least, greatest, shift, s)
    _count_slots(n, slots, s)
    _look_up(genes, gene_keys, s)
    _estimate(n, cell_key, places, s)
    if shift and _several(codes, s):
        _estimate_by_value(codes, greatest, shift, places, s)
    if not _fill_buckets(n, s):
        return _U32(0)
    _empty_buckets(n, s)
    _resolve(codes, genes, gene_keys, cell_key, _U32(places), s)
    return _U32(places)


@compiled
def _slots_of_numbers(codes: np.ndarray, s: Scratch) -> int:
    """Slots used if the codes are bits of small whole numbers (counts), a slot each; 0 otherwise."""
    if codes.itemsize == 4:
        return _slots_of_counts(codes.view(np.float32), s)
    return _slots_of_counts(codes.view(np.float64), s)


@compiled
def _slots_of_counts(values: np.ndarray, s: Scratch) -> int:
    slot, greatest, other = s.slot, np.uint16(0), values[0] % 1 != 0
    if other:  # most cells of fractions end here
        return 0
    for i in range(len(values)):
        count = np.int32(values[i]) if values[i] < SLOTS else np.int32(0)
        other |= values[i] != count
        slot[i] = count
        greatest = max(greatest, np.uint16(count))
    if other:
        return 0
    for i in range(len(values)):
        slot[i] = greatest - slot[i]
    return int(greatest)


@compiled
def _slots_of_ranges(codes: np.ndarray, least: int, greatest: int, shift: np.uint64, s: Scratch) -> int:
    slot = s.slot
    for i in range(len(codes)):
        slot[i] = np.uint16((greatest - codes[i]) >> shift)
    return int(_U64(greatest - least) >> shift) + 1


@compiled
def _count_slots(n: int, slots: int, s: Scratch) -> None:
    """Where the group of each slot begins, and its size."""
    slot, counts, begin = s.slot, s.counts, _U64(0)
    counts[: slots * _COUNTERS] = 0
    for i in range(n):
        counts[_U64(slot[i]) * _U64(_COUNTERS) + _U64(i % _COUNTERS)] += _U32(1)
    for i in range(slots):
        size = _U64(0)
        for k in range(_COUNTERS):
            size += _U64(counts[i * _COUNTERS + k])
        s.groups[i] = (begin << _U64(32)) | size
        begin += size


@compiled
def _look_up(genes: np.ndarray, gene_keys: np.ndarray, s: Scratch) -> None:
    slot, entry, group, groups = s.slot, s.entry, s.group, s.groups
    for i in range(len(genes)):
        entry[i] = gene_keys[_U32(genes[i])]
        group[i] = groups[slot[i]]


@compiled
def _several(codes: np.ndarray, s: Scratch) -> bool:
    """Whether a slot holds several codes."""
    slot, seen = s.slot, s.seen
    for i in range(len(codes)):
        seen[slot[i]] = codes[i]
    for i in range(len(codes)):  # noqa: SIM110 (numba compiles no generator)
        if seen[slot[i]] != codes[i]:
            return True
    return False


@compiled
def _packed(group: np.uint64, share: np.uint64, place: int, places: np.uint64) -> np.uint64:
    """Bucket and word of the position at `share` · 2⁻³² of the group."""
    position = (group & _HIGH) + share * (group & _LOW)
    bucket = position >> _U64(34)
    address = (bucket // _U64(LANES)) * _U64(CHUNK) + bucket % _U64(LANES)
    return (address << _U64(32)) | (position >> _U64(2) & _LOW & ~places) | _U64(place)


@compiled
def _estimate(n: int, cell_key: np.uint64, places: np.uint64, s: Scratch) -> None:
    entry, group = s.entry, s.group
    for i in range(n):
        entry[i] = _packed(group[i], _mix(entry[i] ^ cell_key) >> _U64(32), i, places)


@compiled
def _estimate_by_value(codes: np.ndarray, greatest: int, shift: np.uint64, places: np.uint64, s: Scratch) -> None:
    """Put right the entries of slots that hold several codes."""
    inside = (_U64(1) << shift) - _U64(1)
    several, slot = s.counts, s.slot
    several[:SLOTS] = 0
    for i in range(len(codes)):
        if s.seen[slot[i]] != codes[i]:
            several[slot[i]] = 1
    for i in range(len(codes)):
        if several[slot[i]]:
            share = _U64(greatest - codes[i]) & inside
            share = share >> (shift - _U64(32)) if shift > _U64(32) else share << (_U64(32) - shift)
            s.entry[i] = _packed(s.group[i], share, i, places)


@compiled
def _fill_buckets(n: int, s: Scratch) -> bool:
    """Spread the entries over buckets; False where one is overfilled."""
    entry, buckets = s.entry, s.buckets
    used = ((n - 1) // (4 * LANES) + 1) * CHUNK
    buckets[:used] = _ONES
    for chunk in range(0, used, CHUNK):
        buckets[chunk + CHUNK - LANES : chunk + CHUNK] = 0
    full = _U32(0)
    for i in range(n):
        bucket = entry[i] >> _U64(32)
        held = buckets[bucket + _U64(CHUNK - LANES)]
        full |= held
        buckets[bucket + _U64(held % _U32(LANES * DEPTH))] = _U32(entry[i])
        buckets[bucket + _U64(CHUNK - LANES)] = held + _U32(LANES)
    return bool(full < LANES * DEPTH)


@compiled
def _empty_buckets(n: int, s: Scratch) -> None:
    """Sort the buckets and string them together."""
    word, buckets, end = s.word, s.buckets, _U64(0)
    for chunk in range(0, ((n - 1) // (4 * LANES) + 1) * CHUNK, CHUNK):
        sort_columns(buckets, chunk)
        for bucket in range(chunk, chunk + LANES):
            at = _U64(bucket)  # unsigned: a signed index is checked for being negative
            held = _U64(buckets[at + _U64(CHUNK - LANES)]) // _U64(LANES)
            # more than there are: what is too much is written over next, and a fixed number needs no branch
            for k in range(DEPTH // 2):
                word[end + _U64(k)] = buckets[at + _U64(LANES * k)]
            if held > _U64(DEPTH // 2):
                for k in range(DEPTH // 2, DEPTH):
                    word[end + _U64(k)] = buckets[at + _U64(LANES * k)]
            end += held


@compiled
def _resolve(
    codes: np.ndarray, genes: np.ndarray, gene_keys: np.ndarray, cell_key: np.uint64, places: np.uint32, s: Scratch
) -> None:
    """Put runs of words that differ only in the place into the order of their whole codes and keys."""
    word, equal = s.word, _U32(0)
    for i in range(len(codes) - 1):
        equal |= _U32((word[i] | places) == (word[i + 1] | places))
    if not equal:
        return
    for i in range(1, len(codes)):
        j = i
        while j > 0 and (word[j] | places) == (word[j - 1] | places):
            one, two = word[j - 1] & places, word[j] & places
            if codes[one] > codes[two]:
                break
            if codes[one] == codes[two]:
                key_one, key_two = gene_keys[_U32(genes[one])], gene_keys[_U32(genes[two])]
                key_one, key_two = _mix(key_one ^ cell_key), _mix(key_two ^ cell_key)
                if key_one < key_two or (key_one == key_two and one < two):
                    break
            word[j - 1], word[j] = word[j], word[j - 1]
            j -= 1


@compiled
def _radix_row(
    codes: np.ndarray, greatest: int, genes: np.ndarray, gene_keys: np.ndarray, cell_key: np.uint64, s: Scratch
) -> np.uint32:
    """As `_bucket_row`, for any row."""
    for i in range(len(codes)):
        s.word[i] = i
        s.entry[i] = _mix(gene_keys[_U32(genes[i])] ^ cell_key)
    _radix_sort(len(codes), s)
    for i in range(len(codes)):
        s.entry[i] = _U64(greatest - codes[i])
    _radix_sort(len(codes), s)
    return _ONES


@compiled
def _radix_sort(n: int, s: Scratch) -> None:
    """Sort the places `s.word` by their numbers `s.entry`; equal numbers keep their order."""
    word, spare, entry, counts = s.word, s.spare, s.entry, s.counts[:256]
    for digit in range(0, 64, 8):
        counts[:] = 0
        for i in range(n):
            counts[entry[i] >> _U64(digit) & _U64(255)] += _U32(1)
        if counts[entry[0] >> _U64(digit) & _U64(255)] == n:
            continue
        begin = _U32(0)
        for d in range(256):
            counts[d], begin = begin, begin + counts[d]
        for i in range(n):
            d = entry[word[i]] >> _U64(digit) & _U64(255)
            spare[counts[d]] = word[i]
            counts[d] += _U32(1)
        for i in range(n):
            word[i] = spare[i]
