"""The loops behind Kendall's tau on the host: one pair of scores after another, `G log G` in the sorts between them.

A row is sorted as words of `prefix | place`: `prefix` the leading bits of a value's code (an integer in the order of
the values), `place` what the entry is to be found by. numpy sorts such words in vector registers. Entries that only
the bits cut off would tell apart stand together afterwards and are put in order by insertion.
"""

import numpy as np

from c2s_jax.jit import compiled

_U = np.uint64
# Rows of 32 counters, four to a word of 64 bits. _STEP[s] holds ones in the counters k < s.
_STEP = (np.arange(32)[None, :] < np.arange(32)[:, None]).astype(np.uint16).view(np.uint64)
_ONES = np.uint64(0x0001_0001_0001_0001)
_COUNTER = np.uint64(0xFFFF)


@compiled
def codes_of_floats(bits: np.ndarray, codes: np.ndarray) -> None:
    """Integers in the order of the floats whose bits are given as signed integers, both zeros as one."""
    for row in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            b = bits[row, i]
            # Below zero, falling bits mean rising values; ~b turns them round, and lowest + 1 + ~b takes -0 to 0.
            codes[row, i] = b if b >= 0 else ~b - np.iinfo(bits.dtype).max


@compiled
def pack(codes: np.ndarray, places: np.ndarray, bits: int, words: np.ndarray, shifts: np.ndarray) -> None:
    """Words of rows of codes [N, G] and places [N, G] (below 2^bits), and the bits cut off each row's codes [N]."""
    room = 8 * words.itemsize - bits
    for row in range(codes.shape[0]):
        least, most = codes[row, 0], codes[row, 0]
        for i in range(codes.shape[1]):
            least, most = min(least, codes[row, i]), max(most, codes[row, i])
        # Two's complement: the difference is right even where it overflows the signed type.
        extent, shift = np.uint64(np.int64(most)) - np.uint64(np.int64(least)), np.uint64(0)
        while (extent >> shift) >> np.uint64(room) != 0:
            shift += np.uint64(1)
        for i in range(codes.shape[1]):
            prefix = (np.uint64(np.int64(codes[row, i])) - np.uint64(np.int64(least))) >> shift
            words[row, i] = (prefix << np.uint64(bits)) | np.uint64(places[row, i])
        shifts[row] = shift


@compiled
def ranks_of_sorted(
    codes: np.ndarray,
    words: np.ndarray,
    shifts: np.ndarray,
    bits: int,
    order: np.ndarray,
    ranks: np.ndarray,
    firsts: np.ndarray,
    ties: np.ndarray,
) -> None:
    """From sorted words of places: the place [N, G] of each rank, the rank of each place, the rank of the first of
    the ties at each rank, and the number of tied pairs [N]."""
    places = np.arange(codes.shape[1])
    for row in range(codes.shape[0]):
        row_codes, row_words, row_order = codes[row], words[row], order[row]
        exact = shifts[row] == 0
        _unpack(row_words, bits, row_order)
        if not exact:
            _insert(row_codes, places, row_words, bits, row_order)
        first, n_ties = _U(0), _U(0)
        for k in range(row_order.size):
            i = _U(k)
            if i > 0 and not (
                (row_words[i] ^ row_words[i - _U(1)]) >> bits == 0
                and (exact or row_codes[row_order[i]] == row_codes[row_order[i - _U(1)]])
            ):
                first = i
            n_ties += i - first
            firsts[row, i] = first
            ranks[row, row_order[i]] = i
        ties[row] = n_ties


@compiled
def discordant_pairs(
    codes: np.ndarray,
    places: np.ndarray,
    firsts: np.ndarray,
    words: np.ndarray,
    shifts: np.ndarray,
    bits: int,
    ties: np.ndarray,
    joint: np.ndarray,
    discordant: np.ndarray,
) -> None:
    """Count the pairs of each row that are tied by code, tied on both sides, and discordant, each [N].

    `words` are sorted; they hold ranks on the other side. `places` and `firsts` [N, G] are what `ranks_of_sorted` told
    of these ranks.
    """
    order = np.empty(codes.shape[1], firsts.dtype)
    # Entries seen so far with a greater rank: within the rank's row of 32, and in later rows.
    n_rows = (codes.shape[1] + 31) // 32
    within, later = np.empty(n_rows * 8, np.uint64), np.empty((n_rows + 31) // 32 * 8, np.uint64)
    for row in range(codes.shape[0]):
        row_codes, row_words, row_places, row_firsts = codes[row], words[row], places[row], firsts[row]
        exact = shifts[row] == 0
        _unpack(row_words, bits, order)
        if not exact:
            _insert(row_codes, row_places, row_words, bits, order)
        within[:] = 0
        later[:] = 0
        first, first_joint, n_ties, n_joint, n_discordant = _U(0), _U(0), _U(0), _U(0), _U(0)
        last_rank = _U(codes.shape[1])
        for place in range(codes.shape[1]):
            i = _U(place)
            rank = _U(row_firsts[order[i]])
            if i > 0 and not (
                (row_words[i] ^ row_words[i - _U(1)]) >> bits == 0
                and (exact or row_codes[row_places[order[i]]] == row_codes[row_places[order[i - _U(1)]]])
            ):
                first, first_joint = i, i
            elif rank != last_rank:
                first_joint = i
            last_rank = rank
            n_ties += i - first
            n_joint += i - first_joint
            at, lane = rank >> _U(5), rank & _U(31)
            n_discordant += (within[rank >> _U(2)] >> ((rank & _U(3)) << _U(4))) & _COUNTER
            n_discordant += (later[at >> _U(2)] >> ((at & _U(3)) << _U(4))) & _COUNTER
            base, full = at << _U(3), (at >> _U(5)) << _U(3)
            for k in range(full):
                later[k] += _ONES
            for k in range(8):
                within[base + _U(k)] += _STEP[lane, _U(k)]
                later[full + _U(k)] += _STEP[at & _U(31), _U(k)]
        ties[row], joint[row], discordant[row] = n_ties, n_joint, n_discordant


@compiled
def _unpack(words: np.ndarray, bits: int, order: np.ndarray) -> None:
    mask = (1 << bits) - 1
    for i in range(words.size):
        order[i] = words[i] & mask


@compiled
def _insert(codes: np.ndarray, places: np.ndarray, words: np.ndarray, bits: int, order: np.ndarray) -> None:
    """Sort the entries of one prefix by (code of their place, entry); all else is in order."""
    for i in range(1, order.size):
        if (words[i] ^ words[i - 1]) >> bits != 0:
            continue
        entry = order[i]
        code = codes[places[entry]]
        j = i
        while j > 0 and (words[j] ^ words[j - 1]) >> bits == 0:
            other = codes[places[order[j - 1]]]
            if other < code or (other == code and order[j - 1] < entry):
                break
            order[j] = order[j - 1]
            j -= 1
        order[j] = entry
