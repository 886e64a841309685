package milepost_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// programs builds the complete programs of the README, and returns their paths: caller, worker.
func programs(t *testing.T) (caller, worker string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(package main.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) != 2 {
		t.Fatalf("the README has %d programs, not 2", len(blocks))
	}
	var built []string
	for _, block := range blocks {
		folder := t.TempDir()
		source, program := filepath.Join(folder, "main.go"), filepath.Join(folder, "program")
		if err := os.WriteFile(source, block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		if output, err := exec.Command("gofmt", "-l", source).CombinedOutput(); err != nil || len(output) > 0 {
			t.Errorf("gofmt would change the program: %s %v", output, err)
		}
		if output, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		built = append(built, program)
	}
	return built[0], built[1]
}

// TestReadmePrograms runs the caller and the worker of the README, exactly as they stand there.
func TestReadmePrograms(t *testing.T) {
	callerProgram, workerProgram := programs(t)
	s := startService(t)
	command := func(program, role string) *exec.Cmd {
		command := exec.Command(program)
		command.Env = append(os.Environ(), "MILEPOST_ADDRESS="+s.Address, "MILEPOST_API_KEY="+s.Key("readme", role))
		return command
	}
	worker := command(workerProgram, "WORKER")
	worker.Stderr = os.Stderr
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	output, err := command(callerProgram, "CALLER").CombinedOutput()
	if err != nil || strings.TrimSpace(string(output)) != "frames: 1200" {
		t.Errorf("the caller: %v: %s", err, output)
	}
	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := worker.Wait(); err != nil {
		t.Errorf("the worker: %v", err)
	}
}
