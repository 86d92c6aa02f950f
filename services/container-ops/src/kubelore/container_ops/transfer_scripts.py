"""What runs in a container to send or take content: constant texts, whose arguments are never part of them.

They need a POSIX shell and the programs named here. A file that goes out is read
a second time for its hash, which costs less than `tee`. A tree would not be the
same a second time, and what comes in cannot be: there `tee` writes to a pipe of
the shell's own (`/dev/fd/3`), which its user may open, besides.
"""

from __future__ import annotations

FILE_TOOLS = ("sh", "stat", "dd", "head", "tail", "cat", "mv", "chmod", "chown", "readlink", "rm")
TREE_TOOLS = (*FILE_TOOLS, "tar", "mkdir")

ABSENT, UNREADABLE, FOLDER, TAKEN, ELSEWHERE, SHORT, ALTERED, UNWRITABLE, LINKED = range(91, 100)

_STAT = "stat -L -c '%f %s %u %g %Y %i %y' \"$p\""

LOOK = f"""
p=$1
[ -e "$p" ] || exit {ABSENT}
[ -r "$p" ] || exit {UNREADABLE}
there=$({_STAT}) || exit {UNREADABLE}
echo "$there"
"""
"""Arguments: path. Says what is there, in one line."""

SEND = (
    LOOK
    + f"""
start=$2 length=$3 check=$4
second() {{ echo "$2"; }}
[ "$length" -ge 0 ] || length=$(($(second $there) - start))
blocks() {{ dd if="$p" bs=65536 skip="$1" count="$2" 2>/dev/null; }}
content() {{
  if [ "$length" -le 0 ]; then head -c 1 "$p"; return; fi
  a=$((start / 65536)) first=$((start % 65536 + 1))
  b=$(((start + length) / 65536)) last=$(((start + length) % 65536))
  if [ "$a" -eq "$b" ]; then blocks "$a" 1 | tail -c "+$first" | head -c "$length"; return; fi
  if [ "$first" -gt 1 ]; then blocks "$a" 1 | tail -c "+$first"; a=$((a + 1)); fi
  [ "$b" -eq "$a" ] || blocks "$a" "$((b - a))"
  [ "$last" -eq 0 ] || blocks "$b" 1 | head -c "$last"
}}
tree() {{ tar -cf - -C "$p" .; }}
if [ -d "$p" ] && [ "$check" -gt 0 ]; then
  {{ {{ tree; echo "status $?" >&4; }} |
    {{ {{ tee /dev/fd/3 3>&1 >&6 | sha256sum >&4; }} 6>&1 | dd ibs=65536 obs=65536 2>/dev/null; }}
  }} 4>&2
  exit
fi
if [ -d "$p" ]; then tree; echo "status $?" >&2; exit; fi
[ -f "$p" ] || exit {FOLDER}
[ "$check" != 2 ] || echo "whole $(sha256sum < "$p")" >&2
[ "$check" = 0 ] || {{ content | sha256sum >&2; }} &
content
echo "status $?" >&2
wait
"""
)
"""Arguments: path, start, length (-1: to the end as it is now), check (1 or 0; 2 for a hash of the whole file too).

The line of `LOOK`, then the content. To stderr `status` and how it ended, and
with `check` the hash.
"""

_FILE_PLACE = f"""
p=$1 name=$2 id=$3
if [ -L "$p" ] && [ ! -d "$p" ]; then p=$(readlink -f "$p") || exit {ABSENT}; fi
into=0
if [ -d "$p" ]; then
  [ -n "$name" ] || exit {FOLDER}
  into=1 p=${{p%/}}/$name
  [ ! -d "$p" ] || exit {FOLDER}
fi
folder=${{p%/*}}
[ -d "$folder/" ] || exit {ABSENT}
part=$folder/.kubelore-$id
have=0
[ ! -L "$part" ] || exit {TAKEN}
[ ! -e "$part" ] || {{ [ -f "$part" ] && have=$(stat -c %s "$part"); }} || exit {TAKEN}
"""

FIND = _FILE_PLACE + 'echo "$have"\n'
"""Arguments: path, name, id. Says how many bytes of an upload are there."""

TAKE = (
    _FILE_PLACE
    + f"""
start=$4 check=$5
umask 077
if [ "$start" -gt 0 ]; then
  [ "$start" -eq "$have" ] || {{ echo "elsewhere $have"; exit {ELSEWHERE}; }}
else
  true 2>/dev/null > "$part" || exit {UNWRITABLE}
fi
echo "$into"
if [ "$check" = 1 ] && [ "$start" -eq 0 ]; then tee "$part" | sha256sum >&2; else cat >> "$part"; fi
"""
)
"""Arguments: path, name, id, start, check. Says 1 when the path is a directory it
puts the file into, or where the upload is when that is not `start`; takes content."""

KEEP = (
    _FILE_PLACE
    + f"""
size=$4 sum=$5 mode=$6 owner=$7
[ "$have" -eq "$size" ] || exit {SHORT}
[ -z "$sum" ] || [ "$(sha256sum < "$part")" = "$sum  -" ] || exit {ALTERED}
if [ -f "$p" ]; then
  [ -n "$mode" ] || mode=$(stat -c %a "$p")
  [ -n "$owner" ] || owner=$(stat -c %u:%g "$p")
fi
if [ -n "$owner" ]; then
  chown "$owner" "$part" 2>/dev/null || [ "$(stat -L -c %u /proc/self)" -ne 0 ] || exit {UNWRITABLE}
fi
chmod "${{mode:-644}}" "$part" && mv -f "$part" "$p" || exit {UNWRITABLE}
"""
)
"""Arguments: path, name, id, size, hash (or empty), mode, owner. Gives the content its name, in one step."""

_TREE_PLACE = f"""
p=$1 id=$2 name=$3 into=0
if [ -n "$name" ] && [ -d "$p" ]; then p=${{p%/}}/$name into=1; fi
if [ -d "$p" ]; then
  stage=${{p%/}}/.kubelore-$id
else
  [ ! -e "$p" ] && [ ! -L "$p" ] || exit {TAKEN}
  folder=${{p%/*}}
  [ -d "$folder/" ] || exit {ABSENT}
  stage=$folder/.kubelore-$id
fi
[ ! -L "$stage" ] || exit {TAKEN}
"""

TAKE_TREE = (
    _TREE_PLACE
    + f"""
check=$4
mkdir "$stage" 2>/dev/null || exit {UNWRITABLE}
echo "$into"
unpack() {{
  tar -xpf - -C "$stage" && cat >/dev/null
  ended=$?
  [ "$ended" = 0 ] || rm -rf "$stage"
  echo "status $ended" >&4
}}
if [ "$check" = 1 ]; then
  {{ {{ tee /dev/fd/3 3>&1 >&6 | sha256sum >&4; }} 6>&1 | unpack; }} 4>&2
else
  unpack 4>&2
fi
"""
)
"""Arguments: path, id, name, check. Takes an archive and unpacks it beside its place.

Half of one it removes itself, since whoever sent it may be no more.
"""

KEEP_TREE = (
    _TREE_PLACE
    + f"""
fail() {{ printf '%s\\n' "$2" >&2; exit "$1"; }}
merge() {{
  for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -d "$f" ] && [ ! -L "$f" ]; then
      t=$2/${{f##*/}}
      if [ -L "$t" ]; then fail {LINKED} "$t"; fi
      if [ -d "$t" ]; then merge "$f" "$t"; continue; fi
    elif [ -e "$f" ] || [ -L "$f" ]; then
      t=$2/${{f##*/}}
      if [ -d "$t" ]; then fail {LINKED} "$t"; fi
    else continue
    fi
    mv -f "$f" "$t" || fail {UNWRITABLE} "$t"
  done
}}
if [ -d "$p" ]; then merge "$stage" "$p" && rm -rf "$stage"; else mv "$stage" "$p" || exit {UNWRITABLE}; fi
"""
)
"""Arguments: path, id, name. Gives what was unpacked its place."""

DROP = """
p=$1 id=$2 left=0
if [ -L "$p" ] && [ ! -d "$p" ]; then p=$(readlink -f "$p") || exit 0; fi
for f in "${p%/}/.kubelore-$id" "${p%/*}/.kubelore-$id" "${p%/}"/*/".kubelore-$id" "${p%/}"/.[!.]*/".kubelore-$id"; do
  if [ -e "$f" ] || [ -L "$f" ]; then rm -rf "$f" || left=1; fi
done
exit "$left"
"""
"""Arguments: path, id. Removes what an upload or a write left behind, beside its place or, of a tree, in it; 1 where
it cannot."""
