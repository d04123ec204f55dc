#!/usr/bin/env python3
"""Computes vectors.json with openssl's AES and nothing of this repository:

    keyops/ciphertext/testdata/vectors.py > keyops/ciphertext/testdata/vectors.json

GCM is written out from NIST SP 800-38D, so that the vectors rest on no GCM library.
"""
import hashlib, json, struct, subprocess


def aes(key, blocks):
    return subprocess.run(["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key.hex()],
                          input=blocks, capture_output=True, check=True).stdout


def multiply(x, y):
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def ghash(h, data):
    y = 0
    for i in range(0, len(data), 16):
        y = multiply(y ^ int.from_bytes(data[i:i + 16], "big"), h)
    return y


def padded(b):
    return b + bytes(-len(b) % 16)


def gcm(key, iv, aad, plaintext):
    h = int.from_bytes(aes(key, bytes(16)), "big")
    if len(iv) == 12:
        j0 = iv + b"\0\0\0\1"
    else:
        j0 = ghash(h, padded(iv) + bytes(8) + struct.pack(">Q", 8 * len(iv))).to_bytes(16, "big")
    first = struct.unpack(">I", j0[12:])[0]
    n = (len(plaintext) + 15) // 16
    counters = b"".join(j0[:12] + struct.pack(">I", (first + i) & 0xFFFFFFFF) for i in range(n + 1))
    stream = aes(key, counters)
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream[16:]))
    s = ghash(h, padded(aad) + padded(ciphertext) + struct.pack(">QQ", 8 * len(aad), 8 * len(ciphertext)))
    tag = bytes(a ^ b for a, b in zip(s.to_bytes(16, "big"), stream[:16]))
    return ciphertext + tag


def field(b):
    return struct.pack(">I", len(b)) + b


def context_bytes(context):
    pairs = sorted((k.encode(), v.encode()) for k, v in context.items())
    return field(struct.pack(">Q", len(pairs))) + b"".join(field(k) + field(v) for k, v in pairs)


KEY = bytes(range(32))
IV = bytes.fromhex("cafebabefacedbaddecaf888")
SINGLE, MULTI = "0f8fad5b-d9cb-469f-a165-70867728950e", "mrk-1234abcd12ab34cd56ef1234567890ab"


def good(name, key_id, iv, context, plaintext):
    multi = key_id.startswith("mrk-")
    uuid = bytes.fromhex(key_id.removeprefix("mrk-").replace("-", ""))
    material = hashlib.sha256(b"material of " + key_id.encode()).digest()
    bound = bytes([1, int(multi)]) + uuid + material[:16]
    aad = bound + material + context_bytes(context)
    blob = bound + bytes([len(iv)]) + iv + gcm(KEY, iv, aad, plaintext)
    return {"name": name, "keyID": key_id, "material": material.hex(), "secret": KEY.hex(), "context": context,
            "aad": aad.hex(), "plaintext": plaintext.hex(), "blob": blob.hex()}


def bad(name, blob, refusal):
    return {"name": name, "blob": blob.hex(), "refusal": refusal}


def put(blob, at, value):
    return blob[:at] + bytes([value]) + blob[at + 1:]


accepted = [
    good("single-Region key, no context", SINGLE, IV, {}, b"attack at dawn"),
    good("multi-Region key, no context", MULTI, IV, {}, b"attack at dawn"),
    good("empty plaintext", MULTI, IV, {}, b""),
    good("IV of 16 bytes", MULTI, IV + IV[:4], {"env": "prod"}, b"attack at dawn"),
    good("one pair", MULTI, IV, {"env": "prod"}, b"0123456789abcdef"),
    good("empty value", MULTI, IV, {"env": ""}, b"attack at dawn"),
    good("pairs sorted by bytes", MULTI, IV, 
         {"b": "1", "a": "2", "B": "3", "aa": "4", "\u00e9": "5", "\U0001f511": "6", "\uffee": "7"}, b"x"),
    good("not normalised", MULTI, IV, {"e\u0301": "decomposed", "\u00e9": "composed"}, b"x"),
    good("more than eight pairs", SINGLE, IV, {f"key-{i:02d}": f"value-{i}" for i in range(12)}, b"x"),
    good("plaintext of 4096 bytes", MULTI, IV, {}, bytes(i % 251 for i in range(4096))),
]
g = bytes.fromhex(accepted[1]["blob"])
largest = g + bytes(6144 - len(g))
refused = [
    bad("empty", b"", "header cut short"),
    bad("header cut by one byte", g[:34], "header cut short"),
    bad("version 0", put(g, 0, 0), "version 0 unknown"),
    bad("version 2", put(g, 0, 2), "version 2 unknown"),
    bad("flag 2", put(g, 1, 3), "flags 0x02 unknown"),
    bad("flag 128", put(g, 1, 129), "flags 0x80 unknown"),
    bad("IV of 0 bytes", put(g, 34, 0), "IV of 0 bytes"),
    bad("IV of 13 bytes", put(g, 34, 13), "IV of 13 bytes"),
    bad("IV of 255 bytes", put(g, 34, 255), "IV of 255 bytes"),
    bad("nothing after the IV's length", g[:35], "tag cut short"),
    bad("IV cut short", g[:46], "tag cut short"),
    bad("tag cut by one byte", g[:62], "tag cut short"),
    bad("one byte too large", largest + b"\0", "6145 bytes, at most 6144 allowed"),
]
for v in refused:
    if len(v["blob"]) > 400:  # zeros at the end are counted, not committed
        b = bytes.fromhex(v["blob"]).rstrip(b"\0")
        v["zeros"] = len(v["blob"]) // 2 - len(b)
        v["blob"] = b.hex()
print(json.dumps({"accepted": accepted, "refused": refused}, indent=1))
