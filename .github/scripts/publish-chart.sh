#!/usr/bin/env bash
# publish-chart.sh PACKAGE.tgz URL: puts a chart's package into the Helm repository on the branch gh-pages of origin, and its
# index. What is there stays: no version is replaced, no other entry lost. Run again, it changes nothing.
set -euo pipefail
package=$(realpath "$1")
url=$2
name=$(basename "$package")
pages=$(mktemp --directory)
trap 'git worktree remove --force "$pages"' EXIT
git worktree add --quiet --detach "$pages"

for attempt in 1 2 3 4 5; do # again when somebody else publishes meanwhile
  if git ls-remote --exit-code --heads origin gh-pages > /dev/null; then
    git -C "$pages" fetch --quiet origin gh-pages
    git -C "$pages" reset --quiet --hard FETCH_HEAD
  else
    git -C "$pages" checkout --quiet --orphan "new-pages-$$-$attempt"
    git -C "$pages" rm -r --force --quiet --ignore-unmatch .
    touch "$pages/.nojekyll"
  fi
  if [ -e "$pages/$name" ]; then
    echo "$name is published already"
    exit 0
  fi
  new=$(mktemp --directory)
  cp "$package" "$new/"
  if [ -e "$pages/index.yaml" ]; then
    helm repo index "$new" --url "$url" --merge "$pages/index.yaml"
  else
    helm repo index "$new" --url "$url"
  fi
  mv "$new/$name" "$new/index.yaml" "$pages/"
  git -C "$pages" add --all
  git -C "$pages" commit --quiet --message "Publish $name"
  if git -C "$pages" push --quiet origin HEAD:refs/heads/gh-pages; then
    echo "$name is published"
    exit 0
  fi
done
echo "$name could not be published: origin refused five times" >&2
exit 1
