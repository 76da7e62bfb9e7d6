// What of Argo CD, and of Flux, the ecosystem tier needs, in one program:
//
//	argocd application-controller|repo-server [flags]   components of Argo CD
//	argocd health SCRIPT OBJECT                         what a health script says of an object, in Argo CD's own Lua
//	argocd kstatus OBJECT                               what Flux makes of an object
//
// The program that the authors of Argo CD ship also has the server and its web pages, and takes twice as long to build.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	repository "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/argoproj/argo-cd/v3/util/lua"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "application-controller":
		return execute(controller.NewCommand(), args[1:])
	case len(args) >= 1 && args[0] == "repo-server":
		return execute(repository.NewCommand(), args[1:])
	case len(args) == 3 && args[0] == "health":
		return judge(args[2], func(object *unstructured.Unstructured) (any, error) {
			script, err := os.ReadFile(args[1])
			if err != nil {
				return nil, err
			}
			// Without the open libraries, as scripts in argocd-cm run.
			return lua.VM{}.ExecuteHealthLua(object, string(script))
		})
	case len(args) == 2 && args[0] == "kstatus":
		return judge(args[1], func(object *unstructured.Unstructured) (any, error) {
			result, err := status.Compute(object)
			if err != nil {
				return nil, err
			}
			return map[string]string{"status": result.Status.String(), "message": result.Message}, nil
		})
	}
	return fmt.Errorf("usage: argocd application-controller|repo-server [flags], health SCRIPT OBJECT, kstatus OBJECT")
}

func execute(command *cobra.Command, args []string) error {
	command.SetArgs(args)
	return command.Execute()
}

// judge reads an object as a client of Kubernetes would, and writes what is said of it.
func judge(file string, say func(*unstructured.Unstructured) (any, error)) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err = yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return err
	}
	said, err := say(object)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}
