"""A reader of backups written from docs/backup-format.md and docs/keyring.md alone; it knows nothing of Kubelore's code.

    python read_backup.py KEYRING FOLDER|ARCHIVE

prints the manifest, then each object with its values, as lines of JSON.
"""

import base64
import hashlib
import json
import struct
import sys
import tarfile
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def bound(label, *parts):
    return label + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def files_of(path):
    if path.is_dir():
        return {
            found.relative_to(path).as_posix(): found.read_bytes()
            for found in path.rglob("*")
            if found.is_file()
        }
    with tarfile.open(path) as archive:
        return {
            entry.name.split("/", 1)[1]: archive.extractfile(entry).read() for entry in archive.getmembers()
        }


def xaes_open(key, sealed, additional):
    def block(counter):
        mac = CMAC(AES256(key))
        mac.update(bytes([0, counter]) + b"X\0" + sealed[:12])
        return mac.finalize()

    return AESGCM(block(1) + block(2)).decrypt(sealed[12:24], sealed[24:], additional)


def data_key_of(files, keyring, backup_id):
    secrets = {key["id"]: base64.b64decode(key["secret"]) for key in keyring["keys"] if "secret" in key}
    for name, raw in files.items():
        if name.startswith("key-") and raw[4:12].hex() in secrets:
            purpose, context = b"versions", f"backup/{backup_id}".encode()
            additional = bound(b"kubelore envelope key v1", raw[:12], purpose, context)
            content_key = xaes_open(secrets[raw[4:12].hex()], raw[12:84], additional)
            additional = bound(b"kubelore envelope content v1", purpose, context)
            return AESGCM(content_key).decrypt(raw[84:96], raw[96:], additional)
    raise SystemExit("no key for this backup")


def cipher(data_key, label, backup_id):
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=bound(label, backup_id.encode())).derive(data_key))


def records_of(plain):
    at = 0
    while at < len(plain):
        head, body, sealed = struct.unpack_from(">III", plain, at)
        at += 12
        yield (
            json.loads(plain[at : at + head]),
            plain[at + head : at + head + body],
            plain[at + head + body : at + head + body + sealed],
        )
        at += head + body + sealed


def values_of(head, box, keyring):
    """The box holds msgpack of a map of texts to binaries; msgpack itself is left to a library elsewhere."""
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(keyring["recipient"]["private_key"]))
    context = f"secret:{head['cluster']}:{head['uid']}:{head['rv']}".encode()
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    return suite.decrypt(box[12:], private, info=bound(b"kubelore box v1", box[:12], context))


def main():
    keyring = json.loads(Path(sys.argv[1]).read_text())
    files = files_of(Path(sys.argv[2]))
    raw = files["manifest"]
    backup_id = raw[5 : 5 + raw[4]].decode()
    data_key = data_key_of(files, keyring, backup_id)
    end = 5 + raw[4]
    opened = cipher(data_key, b"kubelore backup manifest v1", backup_id).decrypt(
        raw[end : end + 12], raw[end + 12 :], bound(b"kubelore backup manifest v1", raw[:end])
    )
    manifest = json.loads(zstandard.ZstdDecompressor().decompress(opened))
    print(json.dumps(manifest))
    chunks = cipher(data_key, b"kubelore backup chunks v1", backup_id)
    for entry in manifest["chunks"]:
        raw = files[f"chunks/{entry['number']:08d}"]
        assert hashlib.sha256(raw).hexdigest() == entry["sha256"]
        end = 10 + raw[9]
        assert raw[10:end].decode() == backup_id
        assert int.from_bytes(raw[5:9], "big") == entry["number"]
        assert raw[4] == (1 if entry is manifest["chunks"][-1] else 0)
        additional = bound(b"kubelore backup chunk v1", raw[:end])
        frame = chunks.decrypt(entry["number"].to_bytes(12, "big"), raw[end:], additional)
        for head, body, box in records_of(zstandard.ZstdDecompressor().decompress(frame)):
            values = values_of(head, box, keyring).hex() if box else ""
            print(json.dumps({"head": head, "object": json.loads(body), "values": values}))


main()
