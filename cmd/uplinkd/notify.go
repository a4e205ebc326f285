package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// supervisor is systemd, as far as sd_notify(3) reaches; without NOTIFY_SOCKET every call does nothing.
type supervisor struct {
	watchdog time.Duration // 0: off
	fed      time.Time
}

// newSupervisor reads WATCHDOG_USEC itself: go-systemd uses Atoi, which fails on 32-bit machines above 35 minutes.
func newSupervisor() *supervisor {
	s := &supervisor{}
	pid := os.Getenv("WATCHDOG_PID")
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(us) * time.Microsecond
	}
	return s
}

func notify(state string) { sd.SdNotify(false, state) } // nobody to tell when it fails

func (s *supervisor) ready()    { notify(sd.SdNotifyReady) }
func (s *supervisor) stopping() { notify(sd.SdNotifyStopping) }

// reloading announces a reload; Type=notify-reload wants the time of the announcement (systemd 253; without it
// `systemctl reload` hangs).
func (s *supervisor) reloading() {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return
	}
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, ts.Nano()/1000))
}

// status sets the line in `systemctl status`.
func (s *supervisor) status(line string) {
	notify("STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line))
}

// tick is how often alive wants to be called.
func (s *supervisor) tick() time.Duration { return s.watchdog / 3 }

// alive feeds the watchdog, from the engine's loop and nowhere else, so that a stuck loop is noticed.
func (s *supervisor) alive() {
	if s.watchdog == 0 || time.Since(s.fed) < s.watchdog/4 {
		return
	}
	s.fed = time.Now()
	notify(sd.SdNotifyWatchdog)
}
