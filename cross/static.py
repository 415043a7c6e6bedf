"""Fails unless a 64-bit little-endian ELF program is static and stripped: no interpreter, no needed library, no symbols."""

import struct
import sys

INTERPRETER, DYNAMIC = 3, 2
NEEDED = 1
SYMBOLS = 2


def headers(data, offset, size, count):
    return [data[offset + size * number : offset + size * (number + 1)] for number in range(count)]


def complaints(data):
    if data[:6] != b"\x7fELF\x02\x01":
        return ["it is no 64-bit little-endian ELF file"]
    programs, sections = struct.unpack_from("<QQ", data, 32)
    sizes = struct.unpack_from("<HHHHH", data, 54)
    found = []
    for header in headers(data, programs, sizes[0], sizes[1]):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", header)
        if kind == INTERPRETER:
            found.append("it names an interpreter")
        if kind == DYNAMIC and any(tag == NEEDED for tag, _ in struct.iter_unpack("<qQ", data[offset : offset + size])):
            found.append("it needs a library")
    for header in headers(data, sections, sizes[2], sizes[3]):
        if struct.unpack_from("<I", header, 4)[0] == SYMBOLS:
            found.append("it has symbols")
    return found


def main():
    with open(sys.argv[1], "rb") as file:
        found = complaints(file.read())
    if found:
        sys.exit(f"{sys.argv[1]} is not static and stripped: " + ", ".join(found))


main()
