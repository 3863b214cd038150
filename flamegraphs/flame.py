#!/usr/bin/env python3
"""Folds the output of `perf script -F comm,ip,sym` and draws a flame graph as one SVG.

  flame.py [--title T] STACKS OUT.svg [TOP.md]

Frames are as wide as their share of the samples; children sit on their callers; siblings are in
alphabetical order. Hovering shows name, samples and share; a click zooms in, a click on the
bottom frame zooms out. TOP.md gets a table of the functions with most self time.
"""
import argparse
import collections
import html
import zlib

WIDTH, ROW, PAD, MIN_WIDTH = 1400, 17, 10, 0.4


def stacks(lines):
    """Yields each sample as a tuple of names, outermost first."""
    frames, comm = [], None
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if comm is not None:
                yield (comm, *reversed(frames))
            frames, comm = [], None
        elif line[0] not in " \t":
            comm = line.strip()
        else:
            name = line.split(None, 1)[1].strip() if len(line.split(None, 1)) > 1 else "?"
            frames.append(name.split("+0x")[0])
    if comm is not None:
        yield (comm, *reversed(frames))


class Node:
    def __init__(self):
        self.count = 0
        self.children = {}

    def add(self, stack):
        node = self
        node.count += 1
        for name in stack:
            node = node.children.setdefault(name, Node())
            node.count += 1

    def depth(self):
        return 1 + max((c.depth() for c in self.children.values()), default=0)


def colour(name):
    """Warm for user space, cool for the kernel's usual names; the same name has the same colour."""
    h = zlib.crc32(name.encode())
    kernel = name.startswith(("tcp_", "__x64", "do_", "io_", "sock_", "__sys", "ip_", "ksys", "vfs_",
                              "entry_", "__netif", "net_rx", "_copy", "rep_movs", "ext4_", "blk_"))
    if kernel:
        return f"rgb({90 + h % 60},{150 + (h >> 8) % 60},{200 + (h >> 16) % 50})"
    return f"rgb({215 + h % 40},{90 + (h >> 8) % 110},{50 + (h >> 16) % 40})"


def boxes(node, name, x, width, level, total, out):
    if width < MIN_WIDTH:
        return
    out.append((x, level, width, name, node.count))
    for child_name in sorted(node.children):
        child = node.children[child_name]
        boxes(child, child_name, x, width * child.count / node.count, level + 1, total, out)
        x += width * child.count / node.count


SCRIPT = """
const all=[...document.querySelectorAll('g.f')];
function label(g,w){const t=g.querySelector('text'),n=g.dataset.n;
 t.textContent=w<30?'':n.length*6.6<w-6?n:n.slice(0,Math.max(1,(w-12)/6.6|0))+'…';}
function zoom(z){const zx=+z.dataset.x,zw=+z.dataset.w,zl=+z.dataset.l;
 for(const g of all){const x=+g.dataset.x,w=+g.dataset.w,l=+g.dataset.l;
  let nx=(x-zx)/zw*WIDTH,nw=w/zw*WIDTH;
  if(l<zl&&x<=zx+1e-6&&x+w>=zx+zw-1e-6){nx=0;nw=WIDTH;}
  const on=nx>-1e-3&&nx+nw<=WIDTH+1e-3&&nw>0.3;
  g.style.display=on?'':'none';
  if(on){const r=g.querySelector('rect'),t=g.querySelector('text');
   r.setAttribute('x',nx);r.setAttribute('width',nw);t.setAttribute('x',nx+3);label(g,nw);}}}
for(const g of all)g.onclick=()=>zoom(g);
"""


def draw(root, title, path):
    placed = []
    boxes(root, "all", 0, WIDTH, 0, root.count, placed)
    height = (max(b[1] for b in placed) + 1) * ROW + 50
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-PAD} 0 {WIDTH + 2 * PAD} {height}" '
                f'font-family="monospace" font-size="11">\n<rect x="{-PAD}" width="{WIDTH + 2 * PAD}" '
                f'height="{height}" fill="#fbf7ef"/>\n<text x="0" y="20" font-size="15">'
                f'{html.escape(title)}: {root.count} samples</text>\n')
        for x, level, width, name, count in placed:
            y = height - 12 - (level + 1) * ROW
            safe = html.escape(name, quote=True)
            fits = int((width - 6) / 6.6)
            label = name if len(name) <= fits else name[:fits - 1] + "…"
            label = html.escape(label) if width >= 30 else ""
            f.write(f'<g class="f" data-n="{safe}" data-x="{x:.3f}" data-w="{width:.3f}" data-l="{level}">'
                    f'<title>{safe}: {count} samples, {100 * count / root.count:.2f} %</title>'
                    f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" rx="1" '
                    f'fill="{colour(name)}"/><text x="{x + 3:.2f}" y="{y + 12}" '
                    f'pointer-events="none">{label}</text></g>\n')
        f.write(f"<script><![CDATA[const WIDTH={WIDTH};{SCRIPT}]]></script>\n</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--title", default="flame graph")
    p.add_argument("stacks")
    p.add_argument("svg")
    p.add_argument("top", nargs="?")
    args = p.parse_args()
    root, self_time = Node(), collections.Counter()
    with open(args.stacks, errors="replace") as f:
        for stack in stacks(f):
            root.add(stack)
            self_time[stack[-1]] += 1
    if root.count == 0:
        raise SystemExit("flame.py: no samples: was the process busy?")
    draw(root, args.title, args.svg)
    if args.top:
        with open(args.top, "w") as f:
            f.write("| self | function |\n|---|---|\n")
            for name, count in self_time.most_common(20):
                f.write(f"| {100 * count / root.count:.1f} % | {name} |\n")


if __name__ == "__main__":
    main()
