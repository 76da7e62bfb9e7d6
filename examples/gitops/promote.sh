#!/bin/sh
# Has the Deployment in this working copy name the bundle that Lethe has published, and pushes that. For a job of your CI, every few
# minutes, or for a person; docs/gitops.md, "Git promotes". Where people are to agree, push to a branch and open a pull request instead.
#
#   promote.sh MODEL NAMESPACE PATH-OF-THE-DEPLOYMENT
set -eu
model=$1 namespace=$2 manifest=$3
bundle=$(kubectl get diffusionmodel "$model" -n "$namespace" -o jsonpath='{.status.published.bundle}')
if [ -z "$bundle" ]; then
    echo "nothing of $model is published"
    exit 0
fi
patch='{"spec":{"template":{"metadata":{"annotations":{"lethe.dev/bundle":"'$bundle'"}}}}}'
kubectl patch --local -f "$manifest" --type=strategic -p "$patch" -o yaml > "$manifest.new"
mv "$manifest.new" "$manifest"
git add "$manifest"
if git diff --cached --quiet; then
    echo "$manifest names $bundle already"
    exit 0
fi
git commit --quiet --message "Serve $bundle"
git push --quiet
echo "$manifest names $bundle now"
