# syntax=docker/dockerfile:1

# Has the C compiler that the embedded SQLite needs.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches stay with the builder, not in the image, so a second build compiles only what changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p terse-server \
    && cp target/release/terse /usr/local/bin/terse \
    && mkdir /data

# glibc, certificates and a user without rights; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/terse /usr/local/bin/terse
# A new volume takes over the owner and the rights of the folder that it covers.
COPY --from=build --chown=65532:65532 --chmod=0700 /data /data
ENV TERSE_LISTEN=0.0.0.0:8080 \
    TERSE_DATA_DIR=/data
USER 65532:65532
VOLUME /data
EXPOSE 8080
# Whether it lives is for the orchestrator to ask, at /health.
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/terse"]
CMD ["serve"]
