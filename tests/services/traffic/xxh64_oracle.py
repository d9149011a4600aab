"""XXH64 in plain Python: the independent oracle for Envoy's assignment of units.

Source: the xxHash specification, XXH64 algorithm description (doc/xxhash_spec.md of Cyan4973/xxHash).
"""

P1 = 0x9E3779B185EBCA87
P2 = 0xC2B2AE3D27D4EB4F
P3 = 0x165667B19E3779F9
P4 = 0x85EBCA77C2B2AE63
P5 = 0x27D4EB2F165667C5
MASK = (1 << 64) - 1


def rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & MASK


def lane_round(accumulator: int, lane: int) -> int:
    return rotate((accumulator + lane * P2) & MASK, 31) * P1 & MASK


def merge(accumulator: int, lane: int) -> int:
    return ((accumulator ^ lane_round(0, lane)) * P1 + P4) & MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """The 64-bit hash of `data`."""
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed & MASK, (seed - P1) & MASK]
        while size - at >= 32:
            for index in range(4):
                lanes[index] = lane_round(lanes[index], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        value = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            value = merge(value, lane)
    else:
        value = (seed + P5) & MASK
    value = (value + size) & MASK
    while size - at >= 8:
        value = rotate(value ^ lane_round(0, int.from_bytes(data[at : at + 8], "little")), 27) * P1 + P4
        value &= MASK
        at += 8
    if size - at >= 4:
        value ^= int.from_bytes(data[at : at + 4], "little") * P1 & MASK
        value = (rotate(value, 23) * P2 + P3) & MASK
        at += 4
    while at < size:
        value ^= data[at] * P5 & MASK
        value = rotate(value, 11) * P1 & MASK
        at += 1
    value = (value ^ (value >> 33)) * P2 & MASK
    value = (value ^ (value >> 29)) * P3 & MASK
    return value ^ (value >> 32)


def is_canary(unit: str, salt: str, weight_pct: float) -> bool:
    """The formula of facts.md for clusters in the order [stable, canary]."""
    return xxh64(f"{unit}:{salt}".encode()) % 10_000 >= 10_000 - round(weight_pct * 100)
