"""Paths that try to leave a folder, or to reach what in it is not for clients, with their answers.

`plant` makes the folder. In a target, `{}` stands for the prefix that it is served at.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"nobody outside may read this"
PUBLIC = b"anybody may read this"

CHAIN = 60  # more symlinks than a kernel follows...
INNER_CHAIN = 30  # ...and not so many


def plant(parent: Path) -> Path:
    """Make a folder with a secret beside it, and ways to both of them: what is to be served."""
    root = parent / "root"
    for folder in (
        "",
        "sub/deep",
        "empty",
        ".git",
        "evil",
        "odd",
        "full",
        "s p a c e",
        "...",
        "a..b",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for outside in ("outside", "root2", "rootsecret"):
        (parent / outside).mkdir()
        (parent / outside / "secret.txt").write_bytes(SECRET)
        (parent / outside / "index.html").write_bytes(SECRET)
    (parent / "secret.txt").write_bytes(SECRET)

    for name in (
        *("index.html", "a.txt", "sub/b.txt", "sub/deep/c.txt", "full/index.html", "~", "a:b.txt"),
        *("100%.txt", "50%25.txt", "s p a c e/d e.txt", ".../dots.txt", "a..b/dots.txt", "x;y.txt"),
        *("%2e%2e", "a+b.txt", "caf\xe9.txt", "a\\b.txt", "trailing.", "trailing ", "..a", "a.."),
    ):
        (root / name).write_bytes(PUBLIC)
    for hidden in (".hidden", ".git/config", ".htpasswd", "sub/.hidden", "..b"):
        (root / hidden).write_bytes(SECRET)

    links: dict[str, str | Path] = {
        "out.txt": "../secret.txt",
        "out-absolute.txt": parent / "secret.txt",
        "out-twice.txt": "out.txt",
        "out-by-sub.txt": "sub/../../secret.txt",
        "out-and-in.txt": "../root/a.txt",
        "out": "../outside",
        "out-absolute": parent / "outside",
        "up": "..",
        "sub/up-up": "../..",
        "slash": "/",
        "etc": "/etc",
        "proc": "/proc/self",
        "home": "/proc/self/cwd",
        "look-alike": "../root2",
        "evil/index.html": "../../secret.txt",
        "a.txt.gz": "../secret.txt",
        "sub/b.txt.gz": "../../secret.txt",
        "loop": "loop",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "loop-below": "loop-below/x",
        "nowhere": "missing",
        "nowhere-out": "../missing",
        "in.txt": "a.txt",
        "in-absolute.txt": root / "a.txt",
        "in": "sub",
        "in-deep": "in/deep",
        "self": ".",
        "fifo-link": "fifo",
        "long-name": "x" * 255,
    }
    for number in range(CHAIN):
        links[f"chain-{number}"] = f"chain-{number + 1}"
    for number in range(INNER_CHAIN):
        links[f"inner-{number}"] = f"inner-{number + 1}"
    links[f"chain-{CHAIN}"] = "../secret.txt"
    links[f"inner-{INNER_CHAIN}"] = "a.txt"
    for name, target in links.items():
        (root / name).symlink_to(target)

    os.mkfifo(root / "fifo")
    (root / "odd" / "index.html").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        # By a short way: the name of a socket has room for a hundred characters.
        fd = os.open(root, os.O_RDONLY)
        try:
            sock.bind(f"/proc/self/fd/{fd}/socket")
        finally:
            os.close(fd)
    with suppress(PermissionError):  # only root can; else they are missing, which is all the same
        os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.mknod(root / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    return root


# What there is, so that the rest is not refused for no reason.
FOUND = (
    "{}/",
    "{}/index.html",
    "{}/a.txt",
    "{}/%61.txt",
    "{}/%61%2Etxt",
    "{}/sub/b.txt",
    "{}/s%75b/b.txt",
    "{}/sub/deep/c.txt",
    "{}/full/",
    "{}/100%25.txt",
    "{}/100%.txt",
    "{}/50%2525.txt",
    "{}/s%20p%20a%20c%20e/d%20e.txt",
    "{}/a:b.txt",
    "{}/a%3Ab.txt",
    "{}/x;y.txt",
    "{}/a+b.txt",
    "{}/caf%C3%A9.txt",
    "{}/~",
    "{}/%252e%252e",
    "{}/trailing.",
    "{}/trailing%20",
    "{}/a..",
    "{}/a..b/dots.txt",
    "{}/a.txt?",
    "{}/a.txt?../../secret.txt",
    "{}/a.txt?x=/../secret.txt",
    "{}/in.txt",
    "{}/in-absolute.txt",
    "{}/out-and-in.txt",
    "{}/in/b.txt",
    "{}/in/deep/c.txt",
    "{}/in-deep/c.txt",
    "{}/self/a.txt",
    "{}/self/self/self/sub/b.txt",
    "{}/inner-0",
    f"{{}}/inner-{INNER_CHAIN}",
    "http://x{}/a.txt",
    "http://other{}/a.txt",
    "https://x:1{}/sub/b.txt",
)

# A folder without its slash.
REDIRECTED = (
    "{}/sub",
    "{}/sub?x",
    "{}/in",
    "{}/self",
    "{}/empty",
    "{}/sub/deep",
    "{}/%73ub",
    "{}/a..b",
    "{}/s%20p%20a%20c%20e",
    "http://x{}/sub",
)

MISSING = (
    # Up...
    "{}/..",
    "{}/../",
    "{}/../secret.txt",
    "{}/../../secret.txt",
    "{}/../../../../../../../../../../etc/passwd",
    "{}/../root/a.txt",
    "{}/../root2/secret.txt",
    "{}/../rootsecret/secret.txt",
    "{}/sub/../a.txt",
    "{}/sub/../../secret.txt",
    "{}/sub/deep/../../../secret.txt",
    "{}/missing/../a.txt",
    "{}/missing/../../secret.txt",
    "{}/a.txt/../a.txt",
    "{}/a.txt/..",
    "{}/a.txt/../../secret.txt",
    "{}/./a.txt",
    "{}/sub/./b.txt",
    "{}/.",
    "{}/./",
    "{}/./../secret.txt",
    "{}/.././secret.txt",
    "{}/...",  # hidden
    "{}/.../dots.txt",
    "{}/....//secret.txt",
    "{}/.../...//secret.txt",
    "{}/..;/secret.txt",
    "{}/..;x=y/secret.txt",
    "{}/sub;/../../secret.txt",
    "{}/..a",
    "{}/..b",
    "{}/..%20/secret.txt",
    "{}/%20../secret.txt",
    "{}/..%09/secret.txt",
    "{}/..+/secret.txt",
    "{}/~/../../secret.txt",
    "{}/~root",
    "{}/~root/secret.txt",
    "{}/$HOME/secret.txt",
    "{}/*",
    "{}/?.txt".replace("?", "%3F"),
    # ...encoded...
    "{}/%2e%2e/secret.txt",
    "{}/%2E%2E/secret.txt",
    "{}/.%2e/secret.txt",
    "{}/%2e./secret.txt",
    "{}/%2e%2e%2fsecret.txt",
    "{}/..%2fsecret.txt",
    "{}/..%2Fsecret.txt",
    "{}/%2e/a.txt",
    "{}/%2f",
    "{}/%2fetc%2fpasswd",
    "{}/%2f%2fetc%2fpasswd",
    "{}/sub%2fb.txt",
    "{}/sub%2f..%2f..%2fsecret.txt",
    "{}/sub%2f..%2fa.txt",
    "{}/sub/%2e%2e/%2e%2e/secret.txt",
    "{}/sub/..%2f..%2fsecret.txt",
    "{}%2f..%2fsecret.txt",
    "{}%2fa.txt",
    "{}/a.txt%2f",
    "{}/a.txt%2f..%2f..%2fsecret.txt",
    # ...twice and thrice...
    "{}/%252e%252e/secret.txt",
    "{}/%252e%252e%252fsecret.txt",
    "{}/..%252fsecret.txt",
    "{}/..%25252fsecret.txt",
    "{}/%25%32%65%25%32%65/secret.txt",
    "{}/%%32%65%%32%65/secret.txt",
    "{}/%%32e%%32e/secret.txt",
    "{}/%2%65%2%65/secret.txt",
    "{}/%25252e%25252e%25252fsecret.txt",
    # ...badly...
    "{}/%",
    "{}/%2",
    "{}/%zz",
    "{}/%u002e%u002e/secret.txt",
    "{}/%u002e%u002e%u2215secret.txt",
    "{}/\\x2e\\x2e/secret.txt",
    # ...in an overlong UTF-8, other bad UTF-8, and look-alikes.
    "{}/%c0%ae%c0%ae/secret.txt",
    "{}/%c0%ae%c0%ae%c0%afsecret.txt",
    "{}/..%c0%afsecret.txt",
    "{}/..%c0%2fsecret.txt",
    "{}/..%c1%9csecret.txt",
    "{}/..%c1%1csecret.txt",
    "{}/..%e0%80%afsecret.txt",
    "{}/..%f0%80%80%afsecret.txt",
    "{}/..%f8%80%80%80%afsecret.txt",
    "{}/..%fc%80%80%80%80%afsecret.txt",
    "{}/%e0%80%ae%e0%80%ae/secret.txt",
    "{}/%ff",
    "{}/%ff%fe/secret.txt",
    "{}/%ed%a0%80",
    "{}/%ed%b3%bf",
    "{}/%f4%90%80%80",
    "{}/%80",
    "{}/%e2%80%ae%2e%2e/secret.txt",
    "{}/%ef%bc%8e%ef%bc%8e/secret.txt",
    "{}/..%ef%bc%8fsecret.txt",
    "{}/..%e2%88%95secret.txt",
    "{}/..%e2%81%84secret.txt",
    "{}/%e2%80%a5/secret.txt",
    "{}/caf%E9.txt",
    "{}/cafe%CC%81.txt",
    # Backslashes, which are a part of a name here, and none of what a client may ask for.
    "{}/..\\secret.txt",
    "{}/..\\..\\secret.txt",
    "{}/..%5csecret.txt",
    "{}/..%5Csecret.txt",
    "{}/%2e%2e%5csecret.txt",
    "{}/%5c..%5c..%5csecret.txt",
    "{}/..%255csecret.txt",
    "{}/sub\\b.txt",
    "{}/sub%5cb.txt",
    "{}/a\\b.txt",
    "{}/a%5Cb.txt",
    "{}/\\\\host\\share\\secret.txt",
    "{}/%5c%5chost%5cshare",
    "{}/..\\/secret.txt",
    "{}/../\\secret.txt",
    # NUL and other control characters.
    "{}/%00",
    "{}/a.txt%00",
    "{}/a.txt%00.html",
    "{}/..%00/secret.txt",
    "{}/%00../secret.txt",
    "{}/.%00./secret.txt",
    "{}/..%00%2fsecret.txt",
    "{}/sub%00/b.txt",
    "{}/a.txt%0a",
    "{}/a.txt%0d%0aX:%20y",
    "{}/%0a%0d",
    "{}/%1b[31m",
    "{}/a.txt%08%08%08",
    "{}/%7f",
    # As on other systems: drives, streams, devices, short names, trailing dots and spaces.
    "{}/C:/secret.txt",
    "{}/C:secret.txt",
    "{}/C%3A%5Csecret.txt",
    "{}/c:%2fsecret.txt",
    "{}/a.txt::$DATA",
    "{}/a.txt:stream",
    "{}/a.txt%3A%3A$DATA",
    "{}/:stream",
    "{}/sub::$INDEX_ALLOCATION/b.txt",
    "{}/CON",
    "{}/NUL",
    "{}/aux.txt",
    "{}/COM1",
    "{}/SECRET~1.TXT",
    "{}/INDEX~1.HTM",
    "{}/a.txt.",
    "{}/a.txt...",
    "{}/a.txt%20",
    "{}/a.txt%20.",
    "{}/%20a.txt",
    "{}/A.TXT",
    "{}/SUB/b.txt",
    "{}/a.txt%2e",
    # Slashes too many, and where none belong.
    "{}//",
    "{}///",
    "{}//a.txt",
    "{}///a.txt",
    "{}//sub/b.txt",
    "{}/sub//b.txt",
    "{}/sub//",
    "{}/sub///deep/c.txt",
    "{}//..//..//secret.txt",
    "{}//etc/passwd",
    "{}/a.txt/",
    "{}/a.txt//",
    "{}/a.txt/x",
    "{}/a.txt/index.html",
    "{}/index.html/",
    "{}/missing",
    "{}/missing/",
    "{}/missing/missing/missing",
    # Folders without an index, or with one that is none.
    "{}/empty/",
    "{}/sub/",
    "{}/evil/",
    "{}/evil/index.html",
    "{}/odd/",
    "{}/in-deep/",
    # Hidden.
    "{}/.hidden",
    "{}/.htpasswd",
    "{}/.git",
    "{}/.git/",
    "{}/.git/config",
    "{}/%2egit/config",
    "{}/%2Ehtpasswd",
    "{}/sub/.hidden",
    "{}/sub/%2ehidden",
    "{}/self/.hidden",
    "{}/in/.hidden",
    "{}/.hidden/",
    "{}/.",
    # Symlinks out, in circles, and to nowhere.
    "{}/out.txt",
    "{}/out-absolute.txt",
    "{}/out-twice.txt",
    "{}/out-by-sub.txt",
    "{}/out",
    "{}/out/",
    "{}/out/secret.txt",
    "{}/out/index.html",
    "{}/out-absolute",
    "{}/out-absolute/",
    "{}/out-absolute/secret.txt",
    "{}/up",
    "{}/up/",
    "{}/up/secret.txt",
    "{}/up/root2/secret.txt",
    "{}/up/up/secret.txt",
    "{}/up/root/.hidden",
    "{}/sub/up-up/secret.txt",
    "{}/in/up-up/secret.txt",
    "{}/self/up/secret.txt",
    "{}/slash",
    "{}/slash/",
    "{}/slash/etc/passwd",
    "{}/etc/passwd",
    "{}/etc/",
    "{}/proc/environ",
    "{}/proc/root/etc/passwd",
    "{}/home/secret.txt",
    "{}/look-alike/secret.txt",
    "{}/loop",
    "{}/loop/",
    "{}/loop/a.txt",
    "{}/loop-a",
    "{}/loop-a/a.txt",
    "{}/loop-below",
    "{}/nowhere",
    "{}/nowhere/",
    "{}/nowhere-out",
    "{}/long-name",
    "{}/chain-0",
    f"{{}}/chain-{CHAIN}",
    "{}/chain-0/x",
    # What is neither file nor folder.
    "{}/fifo",
    "{}/fifo/",
    "{}/fifo/x",
    "{}/fifo-link",
    "{}/self/fifo",
    "{}/socket",
    "{}/socket/",
    "{}/zero",
    "{}/zero/",
    "{}/disk",
    # Long.
    "{}/" + "x" * 255,
    "{}/" + "x" * 256,
    "{}/" + "x" * 5000,
    "{}/" + "x/" * 3000,
    "{}/" + "../" * 2600,
    "{}/" + "self/" * 1500 + "missing",
    "{}/" + "%2e%2e/" * 1100 + "secret.txt",
    "{}/" + "sub/../" * 1100 + "../secret.txt",
    "{}/" + "loop/" * 1000,
    "{}/" + "%c3%a9" * 200,
    "{}" + "/" * 5000,
    # In the absolute form.
    "http://x{}/../secret.txt",
    "http://x{}/%2e%2e/secret.txt",
    "http://x{}//etc/passwd",
    "http://../secret.txt",
    "http://x/../secret.txt",
    "http://x/secret.txt",
    "http://x//secret.txt",
    "http://x{}/..\\secret.txt",
    # Beside the prefix.
    "/secret.txt",
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "//secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "/root/a.txt",
)

REFUSED = (
    "secret.txt",
    "../secret.txt",
    "..",
    "\\..\\secret.txt",
    "%2fsecret.txt",
    "C:\\secret.txt",
    "file:///etc/passwd",
    "file://x/etc/passwd",
    "file://x{}/../secret.txt",
    "ftp://x{}/missing",
    "http:/secret.txt",
    "http:",
    "http://[::1{}/a.txt",
    "http://user:pass@x{}/a.txt",
    "{}/&#46;&#46;/secret.txt",
    "http://",
    "{}/a b",
    "{}/a.txt\x00",
    "{}/a.txt\x01",
    "{}/../\x0bsecret.txt",
    "{}/caf\xe9.txt",
    "{}/..\xc0\xafsecret.txt",
    "{}/a.txt\x7f",
    "",
)
