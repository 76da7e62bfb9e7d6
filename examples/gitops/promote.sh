#!/bin/sh
# Has the Deployment in this working copy name the bundle that Lethe has published, or none if nothing is to be served, and pushes that. For
# a job of your CI, every few minutes, or for a person; docs/gitops.md, "Git promotes". Where people are to agree, push to a branch
# and open a pull request instead.
#
#   promote.sh MODEL NAMESPACE PATH-OF-THE-DEPLOYMENT
#
# The Deployment has to be alone in its file: kubectl would patch whatever else is in it as well.
set -eu
model=$1 namespace=$2 manifest=$3
published=$(kubectl get diffusionmodel "$model" -n "$namespace" -o jsonpath='{.status.published.since} {.status.published.bundle}')
since=${published%% *} bundle=${published#* }
if [ -z "$since" ]; then
    echo "it is not known yet what $model is to serve"
    exit 0
fi
value=null
[ -z "$bundle" ] || value="\"$bundle\""
patch='{"spec":{"template":{"metadata":{"annotations":{"lethe.dev/bundle":'$value'}}}}}'
patched() { kubectl patch --local -f "$manifest" --type=merge -p "$patch" -o "$1"; }
found=$(patched name)
if [ "$found" != "deployment.apps/${found##*/}" ]; then
    echo "$manifest holds something else than one Deployment: give that a file of its own" >&2
    exit 1
fi
patched yaml > "$manifest.new"
mv "$manifest.new" "$manifest"
git add "$manifest"
if git diff --cached --quiet; then
    echo "$manifest names ${bundle:-nothing} already"
else
    git commit --quiet --message "Serve ${bundle:-nothing}"
    echo "$manifest names ${bundle:-nothing} now"
fi
# What could not be pushed before is pushed now.
git push --quiet
