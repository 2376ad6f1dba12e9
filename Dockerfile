# Generated from tests/src/image.rs, which a test compares with this file: `AIS_WRITE_GENERATED=1 cargo test --release -p ais-tests dockerfile` writes it anew.
FROM rust:1.95.0-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package ais-node --package ais-operator
# In the image: ais-node ais-operator, the libraries they need, and /tmp.
RUN set -eu; for name in ais-node ais-operator; do install -D -m 0755 "target/release/$name" "/image/$name"; done; \
    ldd /image/ais-* | sed -nE 's:^[^/]*[[:space:]](/[^ ]+) \(.*:\1:p' | sort -u > /libraries; \
    while read -r file; do install -D -m 0755 "$file" "/image$file"; done < /libraries; \
    install -d -m 1777 /image/tmp

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/ais-node"]
