// Reads lines "KafkaName version hex" on stdin, decodes each with Kafka's generated class of that
// name, encodes it again and compares the bytes. Prints every difference, then a summary line.
// With an argument FIELD-TEXT it prints the decoded message too.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HexFormat;

import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;

public class CodecPeer {
    private static final String[] PLACES = {
        "org.apache.kafka.common.message.%s", "org.apache.kafka.common.message.%sData",
        "org.apache.kafka.coordinator.group.generated.%s"
    };

    private static Message create(String name) throws Exception {
        for (String place : PLACES) {
            try {
                return (Message) Class.forName(String.format(place, name))
                    .getDeclaredConstructor().newInstance();
            } catch (ClassNotFoundException e) {
                continue;
            }
        }
        throw new ClassNotFoundException(name);
    }

    private static String check(String name, short version, byte[] bytes, boolean show) {
        try {
            Message m = create(name);
            ByteBuffer in = ByteBuffer.wrap(bytes);
            m.read(new ByteBufferAccessor(in), version);
            if (show)
                System.out.println(m);
            if (in.hasRemaining())
                return in.remaining() + " bytes are left over";
            byte[] again = MessageUtil.toByteBufferAccessor(m, version).buffer().array();
            if (!java.util.Arrays.equals(bytes, again))
                return "encodes as " + HexFormat.of().formatHex(again);
            return null;
        } catch (Throwable e) {
            return e.toString();
        }
    }

    public static void main(String[] args) throws Exception {
        long passed = 0, failed = 0;
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] part = line.split(" ", -1);
            String problem = check(part[0], Short.parseShort(part[1]),
                HexFormat.of().parseHex(part[2]), args.length > 0);
            if (problem == null) {
                passed++;
                continue;
            }
            failed++;
            System.out.println("differs: " + line + ": " + problem);
        }
        System.out.println("codec-peer: " + passed + " passed, " + failed + " failed");
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }
}
