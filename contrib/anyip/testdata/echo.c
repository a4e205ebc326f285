/* A UDP echo server for AnyIP prefixes: answers from the address that was asked. docs/anyip.md explains it. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78 /* not in older C libraries */
#endif

static void check(int failed, const char *what)
{
	if (failed) {
		perror(what);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(argc > 1 ? atoi(argv[1]) : 7)};
	int s = socket(AF_INET6, SOCK_DGRAM, 0), on = 1;

	check(setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), "IPV6_V6ONLY");
	check(setsockopt(s, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on), "IPV6_FREEBIND");
	check(setsockopt(s, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on), "IPV6_RECVPKTINFO");
	check(bind(s, (struct sockaddr *)&any, sizeof any), "bind");
	for (;;) {
		char data[1500];
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE(sizeof(struct in6_pktinfo))];
		} control;
		struct sockaddr_in6 peer;
		struct iovec iov = {data, sizeof data};
		struct msghdr m = {&peer, sizeof peer, &iov, 1, control.space, sizeof control.space, 0};
		ssize_t n = recvmsg(s, &m, 0);
		struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m);

		if (!c || c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_PKTINFO)
			continue;
		/* The control message is right as it came: the destination of the question is the source of the answer. */
		struct in6_pktinfo *info = (struct in6_pktinfo *)CMSG_DATA(c);
		if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr))
			info->ipi6_ifindex = 0; /* let routes decide where the answer leaves */
		if (IN6_IS_ADDR_MULTICAST(&info->ipi6_addr))
			info->ipi6_addr = in6addr_any; /* multicast is no source: let the kernel choose one */
		iov.iov_len = n;
		if (sendmsg(s, &m, 0) < 0)
			perror("sendmsg");
	}
}
