# syntax=docker/dockerfile:1
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --build-arg REVISION="$(git rev-parse HEAD)" --output type=registry,rewrite-timestamp=true --tag REPOSITORY:TAG .
#
# Each platform is built natively (or under emulation), so that what is copied is what `cargo build --release --locked` makes. The same
# commit gives the same image as long as the two base images are the same. They are named by tag here, since a digest goes stale with the
# first fix of the base; the release workflow gives both by digest (BUILDER, BASE) and refuses to run without.
ARG BUILDER=rust:1.95.0-slim-trixie
ARG BASE=gcr.io/distroless/cc-debian13:nonroot

FROM ${BUILDER} AS build
# Two platforms that shared a folder would take each other's binary.
ARG TARGETPLATFORM
WORKDIR /affix
# In place of rust-toolchain.toml, which also names what only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/affix/target,id=target-${TARGETPLATFORM} \
    cargo build --release --locked --bin affix && cp target/release/affix /usr/local/bin/affix

# glibc, libgcc, the certificates of public authorities and a user without rights; no shell and no package manager.
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="affix" \
      org.opencontainers.image.description="Attaches signatures, end-of-life marks and other artifacts to multi-platform images" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /usr/local/bin/affix /usr/local/bin/affix
COPY LICENSE /usr/share/doc/affix/LICENSE
USER 65532:65532
EXPOSE 8080 9440 9443
ENTRYPOINT ["/usr/local/bin/affix"]
