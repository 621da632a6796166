package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"
)

// The kubelet's own client of a container runtime's image service: `cri --endpoint unix:///… pull IMAGE`.
func main() {
	var endpoint, creds string
	root := &cobra.Command{Use: "cri", SilenceUsage: true}
	root.PersistentFlags().StringVar(&creds, "creds", "", "user:password, which the kubelet takes from a pull secret")
	root.PersistentFlags().StringVar(&endpoint, "endpoint", "unix:///run/containerd/containerd.sock", "the runtime's socket")
	images := func(use string, run func(context.Context, imageService, []string) error) {
		root.AddCommand(&cobra.Command{Use: use, RunE: func(command *cobra.Command, args []string) error {
			service, err := criclient.NewRemoteImageService(endpoint, 10*time.Second, nil, nil)
			if err != nil {
				return err
			}
			return run(command.Context(), service, args)
		}})
	}
	images("pull", func(ctx context.Context, service imageService, args []string) error {
		var auth *runtimeapi.AuthConfig
		if user, password, found := strings.Cut(creds, ":"); found {
			auth = &runtimeapi.AuthConfig{Username: user, Password: password}
		}
		for _, name := range args {
			reference, err := service.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, auth, nil)
			if err != nil {
				return err
			}
			fmt.Println(reference)
		}
		return nil
	})
	images("remove", func(ctx context.Context, service imageService, args []string) error {
		for _, name := range args {
			if err := service.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: name}); err != nil {
				return err
			}
		}
		return nil
	})
	images("list", func(ctx context.Context, service imageService, _ []string) error {
		list, err := service.ListImages(ctx, nil)
		for _, image := range list {
			fmt.Println(image.Id, image.RepoTags, image.RepoDigests, image.Size)
		}
		return err
	})
	if root.Execute() != nil {
		os.Exit(1)
	}
}

type imageService interface {
	PullImage(context.Context, *runtimeapi.ImageSpec, *runtimeapi.AuthConfig, *runtimeapi.PodSandboxConfig) (string, error)
	RemoveImage(context.Context, *runtimeapi.ImageSpec) error
	ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
}
