# `make image` builds the same image without a container engine, for one platform.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ)" \
#     --build-arg SOURCE=https://git.example.com/affix --output type=registry,rewrite-timestamp=true --tag REPOSITORY:TAG .
#
# REVISION and CREATED are also the commit and the date that `affix version` prints.
# Each platform is built natively or under emulation, with `cargo build --release --locked`. The same commit and the same base images give
# the same image. The base images are named by tag here, because a digest misses later fixes. The release workflow requires both by digest
# (BUILDER, BASE).
ARG BUILDER=rust:1.95.0-slim-trixie
ARG BASE=gcr.io/distroless/cc-debian13:nonroot

FROM ${BUILDER} AS build
# Each platform has its own folder, because the binaries have the same name.
ARG TARGETPLATFORM
WORKDIR /affix
# Overrides rust-toolchain.toml, which also lists components for developers.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
COPY . .
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/affix/target,id=target-${TARGETPLATFORM} \
    AFFIX_COMMIT="${REVISION#unknown}" AFFIX_DATE="${CREATED#1970-01-01T00:00:00Z}" \
    cargo build --release --locked --bin affix && cp target/release/affix /usr/local/bin/affix

# glibc, libgcc, certificates of public authorities and an unprivileged user; no shell and no package manager.
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
ARG BASE
LABEL org.opencontainers.image.title="affix" \
      org.opencontainers.image.description="Attaches signatures, end-of-life marks and other artifacts to multi-platform images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /usr/local/bin/affix /usr/local/bin/affix
COPY LICENSE /usr/share/doc/affix/LICENSE
USER 65532:65532
EXPOSE 8080 9440 9443
ENTRYPOINT ["/usr/local/bin/affix"]
