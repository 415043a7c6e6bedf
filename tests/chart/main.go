// Command chart reads rendered Kubernetes objects from standard input and fails over the first that its type does not take:
// unknown fields, wrong types, names that are used twice, mounts without a volume.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// uds.dev/v1alpha1 Package, as far as the chart uses it.
type udsPackage struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		Network struct {
			Allow []struct {
				Direction       string            `json:"direction"`
				Description     string            `json:"description"`
				Selector        map[string]string `json:"selector"`
				RemoteGenerated string            `json:"remoteGenerated"`
				Port            int               `json:"port"`
			} `json:"allow"`
		} `json:"network"`
	} `json:"spec"`
}

func main() {
	check := run
	if len(os.Args) == 2 && os.Args[1] == "zarf" {
		check = zarf
	}
	if err := check(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

func run(in io.Reader) error {
	all, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, text := range bytes.Split(all, []byte("\n---\n")) {
		var kind meta.PartialObjectMetadata
		if err := yaml.Unmarshal(text, &kind); err != nil {
			return err
		}
		if kind.Kind == "" {
			continue
		}
		name := kind.Kind + " " + kind.Name
		if seen[name] {
			return fmt.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if err := check(kind.APIVersion+" "+kind.Kind, text); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, text)
		}
		fmt.Println(name)
	}
	if len(seen) == 0 {
		return errors.New("there are no objects")
	}
	return nil
}

// zarf fails over a Zarf package whose variables do not say what they are for: its schema wants that of those the operator is asked for
// and of those handed to charts, and every one of the latter must be one of the former.
func zarf(in io.Reader) error {
	type variable struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Path        string `json:"path"`
	}
	var definition struct {
		Variables  []variable `json:"variables"`
		Components []struct {
			Charts []struct {
				Variables []variable `json:"variables"`
			} `json:"charts"`
		} `json:"components"`
	}
	all, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(all, &definition); err != nil {
		return err
	}
	asked := map[string]bool{}
	for _, variable := range definition.Variables {
		asked[variable.Name] = true
		if variable.Description == "" {
			return fmt.Errorf("variable %s has no description", variable.Name)
		}
	}
	count := 0
	for _, component := range definition.Components {
		for _, chart := range component.Charts {
			for _, variable := range chart.Variables {
				count++
				if variable.Description == "" || variable.Path == "" {
					return fmt.Errorf("the chart's variable %s has no description or no path", variable.Name)
				}
				if !asked[variable.Name] {
					return fmt.Errorf("the chart's variable %s is no variable of the package", variable.Name)
				}
			}
		}
	}
	if count == 0 {
		return errors.New("no chart has a variable")
	}
	return nil
}

func check(kind string, text []byte) error {
	switch kind {
	case "apps/v1 StatefulSet":
		var object apps.StatefulSet
		if err := yaml.UnmarshalStrict(text, &object); err != nil {
			return err
		}
		return pod(object.Spec.Template.Spec, object.Spec.VolumeClaimTemplates)
	case "apps/v1 Deployment":
		var object apps.Deployment
		if err := yaml.UnmarshalStrict(text, &object); err != nil {
			return err
		}
		return pod(object.Spec.Template.Spec, nil)
	case "v1 ConfigMap":
		return yaml.UnmarshalStrict(text, &core.ConfigMap{})
	case "v1 Service":
		return yaml.UnmarshalStrict(text, &core.Service{})
	case "v1 PersistentVolumeClaim":
		return yaml.UnmarshalStrict(text, &core.PersistentVolumeClaim{})
	case "networking.k8s.io/v1 NetworkPolicy":
		return yaml.UnmarshalStrict(text, &networking.NetworkPolicy{})
	case "uds.dev/v1alpha1 Package":
		return yaml.UnmarshalStrict(text, &udsPackage{})
	}
	return fmt.Errorf("no type for %s", kind)
}

func pod(spec core.PodSpec, claims []core.PersistentVolumeClaim) error {
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		return errors.New("enableServiceLinks is not false")
	}
	volumes := map[string]bool{}
	for _, claim := range claims {
		volumes[claim.Name] = true
	}
	for _, volume := range spec.Volumes {
		if volumes[volume.Name] {
			return fmt.Errorf("volume %s is there twice", volume.Name)
		}
		volumes[volume.Name] = true
	}
	for _, container := range spec.Containers {
		for _, mount := range container.VolumeMounts {
			if !volumes[mount.Name] {
				return fmt.Errorf("%s mounts %s, which is no volume", container.Name, mount.Name)
			}
		}
		if container.Name == "peat-node" {
			if err := node(container); err != nil {
				return err
			}
		}
	}
	return nil
}

func node(container core.Container) error {
	context := container.SecurityContext
	if context == nil || context.RunAsUser == nil || *context.RunAsUser == 0 || *context.RunAsUser == 65534 {
		return errors.New("the node does not run as a user of its own")
	}
	if context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
		return errors.New("the node's file system can be written to")
	}
	if container.StartupProbe == nil || container.LivenessProbe == nil || container.ReadinessProbe == nil {
		return errors.New("a probe is missing")
	}
	names := map[string]bool{}
	for _, variable := range container.Env {
		if names[variable.Name] {
			return fmt.Errorf("%s is set twice", variable.Name)
		}
		names[variable.Name] = true
	}
	return nil
}
