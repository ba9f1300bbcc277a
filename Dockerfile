# syntax=docker/dockerfile:1
#
#   docker build -t bugle .
#   docker run -v bugle:/var/lib/bugle -v ./bugle.toml:/etc/bugle.toml:ro -p 3000:3000 -p 50051:50051 --stop-timeout 35 bugle serve --config /etc/bugle.toml
#
# In a container loopback reaches nobody: the configuration needs `listen = "0.0.0.0:…"` and `plaintext_public = true` for clients and
# grpc. `--stop-timeout` is to be longer than `drain.deadline`.

# Both stages are of one Debian release: a binary does not run with an older glibc than it was built with.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /bugle
COPY . .
# The caches keep the dependencies from one build to the next; the binary is copied out, since a cache is no part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/bugle/target \
    cargo build --release --locked && cp target/release/bugle /usr/local/bin/bugle

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin bugle && \
    install -d -o bugle -g bugle /var/lib/bugle
COPY --from=build /usr/local/bin/bugle /usr/local/bin/bugle
# By number: Kubernetes' runAsNonRoot cannot tell what a name stands for.
USER 10001:10001
# Where store.url = "sqlite:bugle.db" keeps what is stored.
WORKDIR /var/lib/bugle
VOLUME /var/lib/bugle
EXPOSE 3000 50051 9090
# Needs no package. The port is that of BUGLE_ADMIN__LISTEN, if it is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s \
    CMD ["bash", "-c", "listen=${BUGLE_ADMIN__LISTEN:-:9090}; exec 3<>/dev/tcp/127.0.0.1/${listen##*:} && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 4 _ status _ <&3 && [[ $status == 200 ]]"]
ENTRYPOINT ["bugle"]
CMD ["serve"]
