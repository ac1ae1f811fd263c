"""A U2-Net-small (U2NETP, arXiv:2005.09007) of random weights as an ONNX file, for speed comparisons.

    python benches/make_u2net.py OUT.onnx [--size 320]

Needs torch and onnx. The layers are those of the published small model: 16 channels inside of blocks, 64 between them.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F


class Unit(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, channels, outputs, dilation=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


def up(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class Block(nn.Module):
    """A small U-Net of `depth` levels with a sum around it; `flat` widens windows instead of halving the image."""

    def __init__(self, depth, channels, inner, outputs, flat=False):
        super().__init__()
        self.flat = flat
        self.first = Unit(channels, outputs)
        wide = [2**i if flat else 1 for i in range(depth - 1)]
        self.down = nn.ModuleList(Unit(outputs if i == 0 else inner, inner, d) for i, d in enumerate(wide))
        self.bottom = Unit(inner, inner, 2 ** (depth - 1) if flat else 2)
        ups = list(reversed(list(enumerate(wide))))
        self.up = nn.ModuleList(Unit(2 * inner, outputs if i == 0 else inner, d) for i, d in ups)

    def forward(self, x):
        first = x = self.first(x)
        kept = []
        for i, unit in enumerate(self.down):
            x = unit(x)
            kept.append(x)
            if not self.flat and i + 1 < len(self.down):
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = self.bottom(x)
        for unit, skip in zip(self.up, reversed(kept)):
            x = unit(torch.cat([x if self.flat else up(x, skip), skip], 1))
        return x + first


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        shape = [(7, False), (6, False), (5, False), (4, False), (4, True), (4, True)]
        self.down = nn.ModuleList(
            Block(depth, 3 if i == 0 else 64, 16, 64, flat) for i, (depth, flat) in enumerate(shape)
        )
        self.up = nn.ModuleList(Block(depth, 128, 16, 64, flat) for depth, flat in reversed(shape[:-1]))
        self.sides = nn.ModuleList(nn.Conv2d(64, 1, 3, padding=1) for _ in shape)
        self.out = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2, 2, ceil_mode=True))
            kept.append(x)
        found = [x]
        for block, skip in zip(self.up, reversed(kept[:-1])):
            x = block(torch.cat([up(x, skip), skip], 1))
            found.insert(0, x)
        sides = [side(x) for side, x in zip(self.sides, found)]
        sides = [sides[0]] + [up(side, sides[0]) for side in sides[1:]]
        return [torch.sigmoid(x) for x in [self.out(torch.cat(sides, 1)), *sides]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--size", type=int, default=320)
    args = parser.parse_args()
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.zeros(1, 3, args.size, args.size)
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} million parameters")
    torch.onnx.export(net, (x,), args.out, dynamo=False, opset_version=17, input_names=["x"])


if __name__ == "__main__":
    main()
