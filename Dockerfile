# The workflow and its environment, for the pods of profiles/kubernetes: docker build --tag IMAGE .
FROM python:3.11-slim-bookworm

# rsync: the storage plugin fs copies with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync \
    && rm -rf /var/lib/apt/lists/*

# A CPU build of torch: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/ftd
COPY requirements.lock ./
RUN pip install --no-cache-dir --requirement requirements.lock
COPY . ./
RUN pip install --no-cache-dir --no-deps .
