/* The sandbox of every pod: waits for its end and collects orphans. With a port as its argument it also greets each
 * caller there, which is enough of a server for tests of the test Kubernetes itself. */
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void leave(int signal) { _exit(signal == SIGTERM || signal == SIGINT ? 0 : 1); }

int main(int argc, char **argv) {
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, SIG_IGN); /* ended children are then collected by the kernel */
    if (argc < 2) {
        for (;;) pause();
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    int server = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 16)) return 1;
    for (;;) {
        int caller = accept(server, 0, 0);
        if (caller < 0) continue;
        if (write(caller, "hello\n", 6) != 6) { /* the caller's own business */ }
        close(caller);
    }
}
