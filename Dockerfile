# The image of a node: one binary, the C library, and nothing else (no shell, no package manager).
#
#   docker build -t tollgate .
#   docker run --rm -p 127.0.0.1:8080:8080 -v tollgate:/var/lib/tollgate -e TOLLGATE_DATA_ADDR=0.0.0.0:8080 tollgate
#
# It is linked against glibc, as everywhere where its figures were measured: static glibc cannot look up names, which peers
# and upstreams are, and musl's allocator is another one than the tests run with.
ARG RUST=1.95

FROM rust:${RUST}-slim-bookworm AS build
# A C compiler, for zstd.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Symbols for backtraces stay in, debug information does not.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    CARGO_PROFILE_RELEASE_DEBUG=false cargo build --release --locked --package tollgate-gateway --bin tollgate \
    && install -D target/release/tollgate /image/tollgate
# A new volume takes the owner of the directory that it is mounted on.
RUN install -d -o 65532 -g 65532 /image/var/lib/tollgate

# libc, libm, libgcc_s, authorities' certificates, a user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image /
USER 65532:65532
ENV TOLLGATE_DATA_DIR=/var/lib/tollgate/node
VOLUME /var/lib/tollgate
# Clients, admin API, peers.
EXPOSE 8080 8081 8082
# SIGTERM, the default, begins to drain; a second one ends the node at once.
ENTRYPOINT ["/tollgate"]
CMD ["serve"]
