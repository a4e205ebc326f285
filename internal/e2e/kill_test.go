package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uplinkd/internal/kernel"
)

// TestTrafficOutlivesDaemon pings a hundred times a second through the router while uplinkd is killed, is away, and
// starts again.
func TestTrafficOutlivesDaemon(t *testing.T) {
	t.Parallel()
	s, _ := bound(t, brief.simulated(), prompt)
	ping := s.host.Command(t.Context(), "ping", "-6", "-n", "-q", "-i", "0.01", "-c", "300", "-W", "2", farAddress)
	var out bytes.Buffer
	ping.Stdout, ping.Stderr = &out, &out
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		s.end(syscall.SIGKILL)
		time.Sleep(300 * time.Millisecond)
		s.start()
	}
	if err := ping.Wait(); err != nil || !strings.Contains(out.String(), "300 received, 0% packet loss") {
		t.Errorf("ping: %v\n%s", err, out.String())
	}
	s.awaitHealthy()
}

// killLANs is how many networks the configs of TestKilledDuringApply have beside lan0.
const killLANs = 16

// killConfigs are two configs that differ in everything that can be planned: metric, table, rule priorities, subnets,
// addresses, and which networks there are.
func killConfigs() [2]string {
	a := prompt + "subnet = 1\n"
	b := "table_base = 2000\n[rules]\nmain = 1500\n" + strings.Replace(prompt, "wan0\"\n", "wan0\"\nmetric = 77\n", 1) + "subnet = 4\naddress = \"::5\"\n"
	for i := range killLANs {
		a += fmt.Sprintf("[downstream.a%d]\ninterface = \"d%d\"\nsubnet = %d\n", i, i, 0x10+i)
		if i%4 != 0 {
			b += fmt.Sprintf("[downstream.b%d]\ninterface = \"d%d\"\nsubnet = %d\n", i, i, 0x1f-i)
		}
	}
	return [2]string{a, b}
}

// seedVar repeats a random test: UPLINKD_SEED=17.
const seedVar = "UPLINKD_SEED"

func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedVar); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			t.Fatalf("%s=%q: %v", seedVar, text, err)
		}
	}
	t.Logf("repeat with %s=%d", seedVar, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestKilledDuringApply changes the config fifty times and kills the daemon at a random moment of following it, or of
// starting again. In the end the kernel has what it has without the kill.
func TestKilledDuringApply(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	s := newSite(t, false)
	lans := s.lab.NS("lans")
	lans.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	for i := range killLANs {
		s.lab.Veth(s.router, fmt.Sprintf("d%d", i), lans, fmt.Sprintf("d%d", i))
	}
	s.simulate(forever)
	configs := killConfigs()
	var undisturbed [2]string
	for round := range 4 { // the second time with the routes to hosts that may still have what they had under the other config
		i := round % 2
		text := configs[i]
		s.configure(text)
		if s.daemon == nil {
			s.start()
		} else {
			s.hangup()
		}
		s.awaitHealthy()
		undisturbed[i] = s.kernelText()
		if n := strings.Count(text, "[downstream."); strings.Count(undisturbed[i], "address ") != n {
			t.Fatalf("want %d addresses in\n%s", n, undisturbed[i])
		}
	}
	log := subscribe(t, s.router)
	partial := 0
	for round := range 50 {
		i := round % 2
		s.configure(configs[i])
		log.take()
		if err := s.daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		// Half of the kills come at any time, half when so many changes have been seen.
		delay, changes := time.Duration(random.Int64N(int64(5*time.Millisecond))), random.IntN(100)
		if round%4 < 2 {
			delay = 0
			log.await(changes)
		}
		time.Sleep(delay)
		s.end(syscall.SIGKILL)
		if found := s.kernelText(); !slices.Contains(undisturbed[:], found) {
			partial++
		}
		if random.IntN(3) == 0 {
			s.start()
			time.Sleep(time.Duration(random.Int64N(int64(40 * time.Millisecond))))
			s.end(syscall.SIGKILL)
		}
		s.start()
		s.awaitHealthy()
		if got := s.kernelText(); got != undisturbed[i] {
			t.Fatalf("round %d, killed %v or %d changes after SIGHUP: the kernel has\n%s\nwithout the kill\n%s", round, delay, changes, got, undisturbed[i])
		}
	}
	t.Logf("%d of 50 kills left the kernel between the two states", partial)
}

// kernelText is all that uplinkd owns in the kernel of the router, and the sysctls that it sets.
func (s *site) kernelText() string {
	s.t.Helper()
	var state kernel.State
	err := s.router.Do(func() (err error) { // /proc/sys/net shows the namespace of the thread that reads
		state, err = s.kernel.Read(context.Background(), kernel.Scope{Sysctls: []string{"net.ipv6.conf.all.forwarding",
			"net.ipv6.conf.wan0.accept_ra", "net.ipv6.conf.wan0.accept_ra_defrtr", "net.ipv6.conf.wan0.accept_ra_rt_info_max_plen"}})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return state.Text(time.Now())
}
