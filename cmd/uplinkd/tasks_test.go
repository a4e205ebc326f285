package main

import (
	"context"
	"log/slog"
	"testing"

	"uplinkd/internal/config"
	"uplinkd/internal/kernel"
	"uplinkd/internal/radv"
)

// TestTasksStop ends a task that waits for the engine while the engine hands over links: neither may wait for stop. A
// reload that comes too late starts nothing.
func TestTasksStop(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	ts := newTasks(t.Context(), log, nil, "", nil)
	task := ts.run("uplink.fiber", func(ctx context.Context) error {
		<-ctx.Done()
		ts.setLinks([]kernel.Link{{Name: "lan0"}})
		return nil
	})
	ts.downstreams["lan"] = &downstreamTask{sender: radv.NewSender("lan", log), running: task}
	stopped := make(chan struct{})
	go func() { defer close(stopped); ts.stop() }()
	if !soon(func() bool {
		select {
		case <-stopped:
			return true
		default:
			return false
		}
	}) {
		t.Fatal("stop waits for a task that waits for stop")
	}
	ts.follow(&config.Config{Downstreams: []config.Downstream{{Name: "guest", Interface: "lan1"}}})
	if ts.downstreams["guest"] != nil {
		t.Error("a task was started after the end")
	}
}
