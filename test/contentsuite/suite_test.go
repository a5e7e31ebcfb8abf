// Package contentsuite holds a running layerswarm content door to containerd's own conformance suite for content stores.
package contentsuite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/defaults"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Longest time a server may take from its start to listening, and from SIGTERM to its end.
const patience = 30 * time.Second

// TestContentDoor runs every case of the suite on a server process and a directory of its own. The command that starts a server is
// in LAYERSWARM_SERVE, its arguments separated by newlines; socket and directory are appended.
func TestContentDoor(t *testing.T) {
	command := os.Getenv("LAYERSWARM_SERVE")
	if command == "" {
		t.Fatal("LAYERSWARM_SERVE is empty; run test/contentsuite/contentsuite.test.ts, which sets it")
	}
	testsuite.ContentSuite(t, "layerswarm", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		store, stop, err := serve(strings.Split(command, "\n"), root)
		return ctx, store, stop, err
	})
}

func serve(command []string, root string) (content.Store, func() error, error) {
	socket := filepath.Join(root, "s")
	arguments := append(command[1:], "--root", root, "--socket", socket)
	process := exec.Command(command[0], arguments...)
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := process.Start(); err != nil {
		return nil, nil, err
	}
	// A server that hangs is killed, which ends both the scan below and the wait for its end.
	impatience := time.AfterFunc(patience, func() { _ = process.Process.Kill() })
	line, err := bufio.NewReader(output).ReadString('\n')
	impatience.Stop()
	if err != nil || line != "listening\n" {
		_ = process.Process.Kill()
		return nil, nil, fmt.Errorf("the server did not start listening: %q: %w", line, errors.Join(err, process.Wait()))
	}
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		_ = process.Process.Kill()
		return nil, nil, errors.Join(err, process.Wait())
	}
	stop := func() error {
		impatience := time.AfterFunc(patience, func() { _ = process.Process.Kill() })
		defer impatience.Stop()
		return errors.Join(conn.Close(), process.Process.Signal(syscall.SIGTERM), process.Wait())
	}
	return proxy.NewContentStore(api.NewContentClient(conn)), stop, nil
}
