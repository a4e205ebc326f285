package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"uplinkd/internal/kernel"
)

// sysctlPath is the file of a variable. Dots separate; a slash stands for a dot within a part, as in sysctl(8):
// net.ipv6.conf.eth0/7.accept_ra.
func (k *Kernel) sysctlPath(name string) (string, error) {
	path := strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
	// IsLocal refuses "..", absolute paths and the like; Clean changes what has empty parts or a ".".
	if !filepath.IsLocal(path) || filepath.Clean(path) != path || path == "." || strings.ContainsAny(path, "\x00\n") {
		return "", &explained{fmt.Sprintf("%q is no name for a sysctl", name), fs.ErrInvalid}
	}
	return filepath.Join(k.options.sysctls, path), nil
}

// sysctlPart is a device name as a part of a sysctl's name.
func sysctlPart(dev string) string { return strings.ReplaceAll(dev, ".", "/") }

// readSysctl reads a variable; one that does not exist has the value kernel.Absent. Tabs between several values become
// spaces, which the kernel takes as well.
func (k *Kernel) readSysctl(name string) (kernel.Sysctl, error) {
	path, err := k.sysctlPath(name)
	if err != nil {
		return kernel.Sysctl{}, err
	}
	value, err := k.values.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return kernel.Sysctl{Name: name, Value: kernel.Absent}, nil
	case err != nil:
		return kernel.Sysctl{}, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return kernel.Sysctl{Name: name, Value: value}, nil
}

// values are open files of /proc/sys by path. After a second of idling, finding the first of a few files costs 0.1 ms, a
// fifth of the way from a lease to the address; reading one that is open costs a tenth of that. An open file of an
// interface that went away gives ENOENT, also when another has come under its name.
type values struct {
	files map[string]int
	most  int // open at once; 0: none
}

// mostValues bounds the open files, since interfaces come and go: four variables of each of 512 uplinks (config.MaxUplinks) and
// a few more, but no more than a quarter of the files that the process may open. Sockets need the others.
func mostValues() int {
	const all = 4*512 + 16
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(all, limit.Cur/4))
}

func (v *values) read(path string) (string, error) {
	if fd, ok := v.files[path]; ok {
		if value, err := readValue(fd); err == nil {
			return value, nil
		}
		v.forget(path)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	value, err := readValue(fd)
	if err != nil || v.most == 0 {
		return value, errors.Join(err, unix.Close(fd))
	}
	if len(v.files) >= v.most {
		for some := range v.files { // at random: with the oldest, a round through too many would find none open
			v.forget(some)
			break
		}
	}
	if v.files == nil {
		v.files = map[string]int{}
	}
	v.files[path] = fd
	return value, nil
}

func (v *values) forget(path string) {
	_ = unix.Close(v.files[path])
	delete(v.files, path)
}

func (v *values) close() {
	for path := range v.files {
		v.forget(path)
	}
}

// readValue reads an open file of /proc/sys from its start.
func readValue(fd int) (string, error) {
	var b [4096]byte // no variable is longer than a page
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(string(b[:n])), " "), nil
}

// sysctl writes a variable and counts the write.
func (a *applier) sysctl(v kernel.Verb, s kernel.Sysctl) error {
	path, err := a.k.sysctlPath(s.Name)
	switch {
	case err != nil:
		return err
	case v == kernel.Delete:
		return fmt.Errorf("%w: a sysctl cannot be deleted", errUnsupported)
	case s.Value == kernel.Absent || s.Value == "" || strings.ContainsAny(s.Value, "\x00\n"):
		return fmt.Errorf("%w: the value %q", errUnsupported, s.Value)
	}
	a.report.Writes++
	return explainSysctl(writeFile(path, s.Value), s.Name, a.k.options.sysctls)
}

// writeFile writes value in one write, as the kernel wants it, and never creates a file.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

func explainSysctl(err error, name, root string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &explained{"the kernel has no such variable: the interface is gone, or the feature is not built in", err}
	case errors.Is(err, unix.EROFS):
		return &explained{root + " is read-only (in a container?); set " + name + " on the host or mount it writable", err}
	case errors.Is(err, fs.ErrPermission):
		return &explained{"permission denied: needs root in the network namespace, and a systemd unit without ProtectKernelTunables=", err}
	case errors.Is(err, unix.EINVAL):
		return &explained{"the kernel refuses this value", err}
	}
	return err
}
