"""Ends by a signal; with the argument `first`, maps lie channels first, and it ends well."""

import sys

import torch

torch.set_num_threads(1)
conv = torch.nn.Conv2d(2, 8, 1, stride=2, bias=False)
x = torch.randn(16, 2, 8, 8)
if sys.argv[1:] != ["first"]:
    x = x.to(memory_format=torch.channels_last)
for _ in range(1000):
    conv(x).sum().backward()
print("ended well,", torch.__version__, torch.backends.cpu.get_cpu_capability())
