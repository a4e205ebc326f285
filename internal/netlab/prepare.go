package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Prepare reports whether this process was started by Enter or TestMain, and makes the new namespaces ready for use. It
// has to be called before anything else, and before any other process is started. On an error the program has to end;
// the reason has then been reported to Enter, which returns it.
func Prepare() (entered bool, err error) {
	switch os.Getenv(stage) {
	case "":
		return false, nil
	case stageEnter:
		status := os.NewFile(statusFD, "netlab status")
		if status == nil {
			return true, fmt.Errorf("%s=%s is for internal use: unset it", stage, stageEnter)
		}
		unix.CloseOnExec(statusFD)
		if err = prepare(); err != nil {
			_, _ = status.WriteString(err.Error())
		}
		inside = err == nil
		return true, errors.Join(err, status.Close())
	default:
		ns, err := os.Readlink("/proc/self/ns/net")
		inside = err == nil && ns == os.Getenv(stage)
		return inside, err
	}
}

func prepare() error {
	for _, path := range []string{os.TempDir(), workingDirectory()} {
		if path == "/run" || strings.HasPrefix(path, "/run/") {
			return fmt.Errorf("%s lies under /run, which is replaced by a private tmpfs: work or set TMPDIR elsewhere", path)
		}
	}
	if err := prepareMounts(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("ip link set lo up: %w", err)
	}
	if err := prepareSysctl(); err != nil {
		return err
	}
	if err := preparePath(); err != nil {
		return err
	}
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	return os.Setenv(stage, ns)
}

func workingDirectory() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return dir
}

// stateDirs are where the DHCP peers of our tests insist on keeping state. Those that exist get a private tmpfs.
var stateDirs = []string{"/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/dhcpv6", "/var/lib/dibbler", "/var/lib/kea", "/var/log/kea"}

// prepareMounts keeps everything that is mounted here, and everything that peers write to the usual places, away from the
// machine: dhcpcd, for one, rewrites /etc/resolv.conf even from within an isolated network namespace.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount --make-rprivate /: %w", err)
	}
	for _, dir := range append([]string{"/run"}, stateDirs...) {
		if real, err := filepath.EvalSymlinks(dir); err != nil || real != dir {
			continue // absent, or a link to one of the others
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount -t tmpfs tmpfs %s: %w", dir, err)
		}
	}
	if err := os.Mkdir("/run/lock", 0o777); err != nil {
		return err
	}
	if err := unix.Mount("/etc", "/etc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount --rbind /etc /etc: %w", err)
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/etc", unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("mount -o remount,ro /etc (needs Linux 5.12): %w", err)
	}
	return nil
}

// prepareSysctl makes sure that sysctls can be written. /proc/sys/net always shows the namespace of the reader; but in
// many containers it is mounted read-only, and then only a new /proc helps, which the kernel may refuse.
func prepareSysctl() error {
	const probe = "/proc/sys/net/ipv6/conf/all/forwarding"
	writable := func() error {
		f, err := os.OpenFile(probe, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if writable() == nil {
		return nil
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("no writable %s, and mount -t proc proc /proc: %w", probe, err)
	}
	return writable()
}

// preparePath adds the system directories, which ordinary users often do not have in their PATH, and looks for the
// programs that the lab itself needs.
func preparePath() error {
	path := os.Getenv("PATH")
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if !strings.Contains(":"+path+":", ":"+dir+":") {
			path += ":" + dir
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	for program, pkg := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: install the package %s", err, pkg)
		}
	}
	return nil
}

// loopbackUp sets lo up in the network namespace of the calling thread.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
