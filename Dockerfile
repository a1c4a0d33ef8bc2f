# docker build --target cpu -t archsmith .
# docker build --target cuda -t archsmith:cuda .     # for a GPU: docker run --gpus all ...
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" archsmith data=folder data.root=photos
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY archsmith archsmith
COPY conf conf
COPY hydra_plugins hydra_plugins
COPY search_spaces search_spaces
COPY strategies strategies
COPY supernets supernets
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# What both have: a compiler for the native kernels, a user who is not root, outputs in /work.
FROM python:${PYTHON}-slim AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home archsmith && install -d -m 1777 /work
ENV HOME=/tmp USER=archsmith PYTHONUNBUFFERED=1
COPY constraints.txt /wheels/
COPY --from=wheel /wheels /wheels
WORKDIR /work
ENTRYPOINT ["archsmith"]
CMD ["--help"]

# The default wheels of torch for Linux contain CUDA's libraries.
FROM base AS cuda
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[onnx]"
USER archsmith

# --build-arg TORCH_INDEX=<address of torch's CPU wheels, see pytorch.org> makes it several GB smaller.
FROM base AS cpu
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[onnx]"
USER archsmith
