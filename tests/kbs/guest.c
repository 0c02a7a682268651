/* The guest components, as a machine of the lab has them: one program that is whatever it is called by.
 *
 *   attestation-agent --config-file FILE -a unix://PATH
 *                                                  says "evidence" to whoever connects
 *   confidential-data-hub -c FILE get-resource --resource-uri URI
 *                                                  asks the KBS that FILE names, and writes base64
 *   confidential-data-hub-daemon -c FILE           does the same for GetResource over ttrpc, at the socket that FILE names
 *
 * The attestation is a word, and so is the KBS (tests/kbs/broker.py): what is real is who runs what, when, and who gives
 * which bytes to whom. Command lines and wire as published; see confidential_data_hub.py and wire.py.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define AGENT "/run/confidential-containers/attestation-agent/attestation-agent.sock"
#define SOCKET "/run/confidential-containers/cdh.sock"
#define UNIX "unix://"

static void panic(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "thread 'main' panicked at guest.c:\nfailed to get resource, ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(101);
}

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un found = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof found.sun_path)
        panic("path too long");
    strcpy(found.sun_path, path);
    return found;
}

static int listening(const char *path)
{
    struct sockaddr_un place = address(path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(path);
    if (bind(listener, (struct sockaddr *)&place, sizeof place) || listen(listener, 8))
        panic("cannot listen at %s", path);
    return listener;
}

/* Prove what this machine runs: a word, which only the attestation agent knows. */
static void evidence(char *word, size_t size)
{
    struct sockaddr_un place = address(AGENT);
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    ssize_t count = -1;
    if (!connect(connection, (struct sockaddr *)&place, sizeof place))
        count = read(connection, word, size - 1);
    if (count <= 0)
        panic("Attestation Agent token provider error: %s does not answer", AGENT);
    word[count] = 0;
    close(connection);
}

/* The value of a key in a configuration file, wherever it stands. */
static int configured(const char *file, const char *key, char *value, size_t size)
{
    char line[4096], name[64];
    FILE *stream = fopen(file, "r");
    if (!stream)
        panic("failed to initialize cdh config: %s", file);
    snprintf(name, sizeof name, "%s = \"", key);
    value[0] = 0;
    while (fgets(line, sizeof line, stream))
        if (!strncmp(line, name, strlen(name)))
            snprintf(value, size, "%.*s", (int)strcspn(line + strlen(name), "\""), line + strlen(name));
    fclose(stream);
    return value[0] != 0;
}

/* Get a resource from the KBS, and return how many bytes it has. */
static size_t resource(const char *file, const char *uri, char *bytes, size_t size)
{
    char url[512], host[256], port[16] = "80", word[64], request[2048], *end, *body;
    struct addrinfo *found, hint = {.ai_socktype = SOCK_STREAM};
    size_t total = 0;
    ssize_t count;
    int connection;
    if (!configured(file, "url", url, sizeof url) || sscanf(url, "http://%255[^:/]:%15[0-9]", host, port) < 1)
        panic("failed to initialize cdh config: no url");
    evidence(word, sizeof word);
    if (getaddrinfo(host, port, &hint, &found))
        panic("error sending request: dns error: failed to lookup address information");
    connection = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(connection, found->ai_addr, found->ai_addrlen))
        panic("error sending request for url (%s)", url);
    snprintf(request, sizeof request, "GET /kbs/v0/resource/%s HTTP/1.0\r\nx-evidence: %s\r\n\r\n",
             uri + strlen("kbs:///"), word);
    if (write(connection, request, strlen(request)) < 0)
        panic("error sending request for url (%s)", url);
    while (total < size - 1 && (count = read(connection, bytes + total, size - 1 - total)) > 0)
        total += count;
    bytes[total] = 0;
    close(connection);
    end = bytes + total;
    if (!(body = memmem(bytes, total, "\r\n\r\n", 4)))
        panic("error sending request for url (%s)", url);
    if (strncmp(bytes + strlen("HTTP/1.0 "), "200", 3))
        panic("KBS attest unauthorized, Error Info: %.*s", (int)(end - body - 4), body + 4);
    body += 4;
    memmove(bytes, body, end - body);
    return end - body;
}

static void write_base64(const unsigned char *bytes, size_t count)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t place = 0; place < count; place += 3) {
        uint32_t three = bytes[place] << 16;
        three |= place + 1 < count ? bytes[place + 1] << 8 : 0;
        three |= place + 2 < count ? bytes[place + 2] : 0;
        putchar(letters[three >> 18]);
        putchar(letters[three >> 12 & 63]);
        putchar(place + 1 < count ? letters[three >> 6 & 63] : '=');
        putchar(place + 2 < count ? letters[three & 63] : '=');
    }
    putchar('\n');
}

static size_t varint(unsigned char *at, size_t number)
{
    size_t count = 0;
    for (; number > 127; number >>= 7)
        at[count++] = (number & 127) | 128;
    at[count++] = number;
    return count;
}

static void serve(const char *file)
{
    static unsigned char data[1 << 16], answer[1 << 16];
    static char bytes[1 << 15];
    char path[128] = UNIX SOCKET;
    int listener, connection;
    configured(file, "socket", path, sizeof path);
    listener = listening(path + strlen(UNIX));
    while ((connection = accept(listener, NULL, NULL)) >= 0) {
        uint32_t head[2];
        unsigned char *uri, *end;
        size_t length, count, size = 0;
        if (recv(connection, data, 10, MSG_WAITALL) != 10)
            continue;
        memcpy(head, data, sizeof head);
        length = ntohl(head[0]);
        if (data[8] != 1 || length > sizeof data - 1 || recv(connection, data, length, MSG_WAITALL) != (ssize_t)length)
            panic("no request");
        if (!memmem(data, length, "api.GetResourceService", 22) || !(uri = memmem(data, length, "kbs:///", 7)))
            panic("another request");
        end = uri + uri[-1]; /* the length of the field */
        *end = 0;
        count = resource(file, (char *)uri, bytes, sizeof bytes);
        /* Response.payload = GetResourceResponse.Resource = the bytes */
        unsigned char inner[8], outer[8];
        inner[0] = 1 << 3 | 2;
        size_t inside = 1 + varint(inner + 1, count);
        outer[0] = 2 << 3 | 2;
        size_t outside = 1 + varint(outer + 1, inside + count);
        size = outside + inside + count;
        head[0] = htonl(size);
        memcpy(answer, head, sizeof head);
        answer[8] = 2;
        answer[9] = 0;
        memcpy(answer + 10, outer, outside);
        memcpy(answer + 10 + outside, inner, inside);
        memcpy(answer + 10 + outside + inside, bytes, count);
        if (write(connection, answer, 10 + size) < 0)
            panic("no reader");
        close(connection);
    }
}

int main(int count, char **words)
{
    static char bytes[1 << 16];
    const char *name = strrchr(words[0], '/') ? strrchr(words[0], '/') + 1 : words[0];
    if (!strcmp(name, "attestation-agent") && count == 5 && !strcmp(words[1], "--config-file") && !strcmp(words[3], "-a")) {
        char word[64];
        int connection, listener;
        if (!configured(words[2], "evidence", word, sizeof word))
            panic("no configuration");
        listener = listening(words[4] + strlen(UNIX));
        while ((connection = accept(listener, NULL, NULL)) >= 0) {
            if (write(connection, word, strlen(word)) < 0)
                panic("no reader");
            close(connection);
        }
        return 1;
    }
    if (!strcmp(name, "confidential-data-hub-daemon") && count == 3 && !strcmp(words[1], "-c")) {
        serve(words[2]);
        return 1;
    }
    if (!strcmp(name, "confidential-data-hub") && count == 6 && !strcmp(words[1], "-c") && !strcmp(words[3], "get-resource")
        && !strcmp(words[4], "--resource-uri")) {
        write_base64((unsigned char *)bytes, resource(words[2], words[5], bytes, sizeof bytes));
        return 0;
    }
    fprintf(stderr, "error: unexpected argument\n\nUsage: %s\n", name);
    return 2;
}
