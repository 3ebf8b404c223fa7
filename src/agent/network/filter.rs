//! The packet filter on the interface: a classic BPF program that the kernel runs for every outgoing packet.
//!
//! It works below sockets, routes and protocols, so only another interface could bypass it. It needs no firewall
//! module, only `sch_ingress` and `cls_bpf`, which all general-purpose kernels have.

use futures::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::Failure;
use crate::protocol::Egress;

/// From `linux/pkt_cls.h`: the attributes of a filter that contain a classic BPF program.
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;

const EVERY_PROTOCOL: u16 = 0x0003;

/// Attaches the filter to the packets that leave `interface`.
pub(super) async fn install(handle: &mut Handle, interface: u32, egress: &Egress) -> Result<(), Failure> {
    let index = interface as i32;
    let mut hook = TcMessage::with_index(index);
    hook.header.parent = TcHandle::CLSACT;
    hook.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    hook.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    let added = send(handle, RouteNetlinkMessage::NewQueueDiscipline(hook)).await;
    added.map_err(Failure::netlink("hook into the interface (kernel module `sch_ingress`)"))?;

    let program = program(egress);
    let length =
        u16::try_from(program.len()).map_err(Failure::of("install a filter of more than 65535 instructions"))?;
    let code = program.iter().flat_map(|instruction| instruction.bytes()).collect();
    let mut filter = TcMessage::with_index(index);
    filter.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
    filter.header.info = 1 << 16 | u32::from(EVERY_PROTOCOL.to_be());
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(TCA_BPF_OPS_LEN, length.to_ne_bytes().to_vec()))),
        TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(TCA_BPF_OPS, code))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let added = send(handle, RouteNetlinkMessage::NewTrafficFilter(filter)).await;
    added.map_err(Failure::netlink("add a filter (kernel module `cls_bpf`)"))
}

async fn send(handle: &mut Handle, message: RouteNetlinkMessage) -> Result<(), rtnetlink::Error> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut answers = handle.request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(err) = answer.payload {
            return Err(rtnetlink::Error::NetlinkError(err));
        }
    }
    Ok(())
}

/// One instruction, with the layout of `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let (code, value) = (self.code.to_ne_bytes(), self.value.to_ne_bytes());
        [code[0], code[1], self.if_true, self.if_false, value[0], value[1], value[2], value[3]]
    }
}

// From `linux/filter.h`: the opcodes that the program needs.
const LOAD_LENGTH: u16 = 0x80;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// Loads a half word at an offset plus the index register, here from behind the IPv4 header.
const LOAD_HALF_INDEXED: u16 = 0x48;
/// Loads four times the lower half of a byte, the length of an IPv4 header, into the index register.
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// The program's verdicts, from `linux/pkt_cls.h`.
const PASS: u32 = 0;
const DROP: u32 = 2;

const ETHERNET_HEADER: u32 = 14;
const ETHER_TYPE: u32 = 12;
const ARP: u32 = 0x0806;
const IPV4: u32 = 0x0800;
const SHORTEST_IPV4: u32 = ETHERNET_HEADER + 20;
const FRAGMENT_OFFSET: u32 = ETHERNET_HEADER + 6;
const FRAGMENT_OFFSET_BITS: u32 = 0x1fff;
const IP_PROTOCOL: u32 = ETHERNET_HEADER + 9;
const TCP: u32 = 6;
const UDP: u32 = 17;
const DESTINATION: u32 = ETHERNET_HEADER + 16;
/// The offset of the port in TCP and UDP, to which the length of the IPv4 header is added.
const DESTINATION_PORT: u32 = ETHERNET_HEADER + 2;
const DNS: u32 = 53;

/// The most name servers. No resolver asks more, and a jump can skip the instructions for this many.
const MAX_NAMESERVERS: usize = 16;

/// Compiles a policy to a program.
fn program(egress: &Egress) -> Vec<Instruction> {
    let step = |code, value| Instruction { code, if_true: 0, if_false: 0, value };
    let jump = |code, value, if_true, if_false| Instruction { code, if_true, if_false, value };
    let verdict = |reached| step(RETURN, if reached { PASS } else { DROP });

    let mut program = vec![
        step(LOAD_HALF, ETHER_TYPE),
        jump(JUMP_IF_EQUAL, ARP, 0, 1),
        verdict(true),
        // Everything except ARP and IPv4 is dropped, including IPv6.
        jump(JUMP_IF_EQUAL, IPV4, 1, 0),
        verdict(false),
        // A load from beyond the packet's end would end the program and let the packet pass.
        step(LOAD_LENGTH, 0),
        jump(JUMP_IF_AT_LEAST, SHORTEST_IPV4, 1, 0),
        verdict(false),
    ];

    let nameservers = &egress.nameservers[..egress.nameservers.len().min(MAX_NAMESERVERS)];
    if !nameservers.is_empty() {
        let matches =
            nameservers.iter().flat_map(|address| [jump(JUMP_IF_EQUAL, u32::from(*address), 0, 1), verdict(true)]);
        let matches: Vec<_> = matches.collect();
        // The distance to the end of this part, from a jump that has `below` more instructions in the list below it.
        let past_dns = |below: u8| below + matches.len() as u8;
        program.extend([
            // Only the first fragment contains the port.
            step(LOAD_HALF, FRAGMENT_OFFSET),
            jump(JUMP_IF_ANY_BIT, FRAGMENT_OFFSET_BITS, past_dns(7), 0),
            step(LOAD_BYTE, IP_PROTOCOL),
            jump(JUMP_IF_EQUAL, UDP, 1, 0),
            jump(JUMP_IF_EQUAL, TCP, 0, past_dns(4)),
            step(LOAD_HEADER_LENGTH, ETHERNET_HEADER),
            step(LOAD_HALF_INDEXED, DESTINATION_PORT),
            jump(JUMP_IF_EQUAL, DNS, 0, past_dns(1)),
            step(LOAD_WORD, DESTINATION),
        ]);
        program.extend(matches);
    }

    for rule in &egress.rules {
        program.extend([
            step(LOAD_WORD, DESTINATION),
            step(AND, u32::from(rule.network.netmask())),
            jump(JUMP_IF_EQUAL, u32::from(rule.network.network()), 0, 1),
            verdict(rule.reached),
        ]);
    }
    program.push(verdict(egress.allow_unmatched));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Rule;

    /// Interprets the program for one packet, as the kernel does, and returns its verdict.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut at, mut accumulator, mut index) = (0, 0_u32, 0_usize);
        let byte = |at: usize| u32::from(packet[at]);
        let half = |at: usize| byte(at) << 8 | byte(at + 1);
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            let place = value as usize;
            let jump = |holds: bool| if holds { usize::from(if_true) } else { usize::from(if_false) };
            at += 1;
            match code {
                LOAD_LENGTH => accumulator = packet.len() as u32,
                LOAD_WORD => accumulator = half(place) << 16 | half(place + 2),
                LOAD_HALF => accumulator = half(place),
                LOAD_BYTE => accumulator = byte(place),
                LOAD_HALF_INDEXED => accumulator = half(index + place),
                LOAD_HEADER_LENGTH => index = (byte(place) as usize & 0xf) * 4,
                AND => accumulator &= value,
                JUMP_IF_EQUAL => at += jump(accumulator == value),
                JUMP_IF_AT_LEAST => at += jump(accumulator >= value),
                JUMP_IF_ANY_BIT => at += jump(accumulator & value != 0),
                RETURN => return value,
                _ => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    /// An IPv4 packet with `options` words of options, at `offset` of a fragmented packet.
    fn packet(to: &str, protocol: u32, port: u16, options: u8, offset: u16) -> Vec<u8> {
        let mut packet = vec![0; 12];
        packet.extend([0x08, 0x00, 0x45 + options, 0, 0, 0, 0, 0]);
        packet.extend(offset.to_be_bytes());
        packet.extend([64, protocol as u8, 0, 0, 192, 168, 0, 2]);
        packet.extend(to.parse::<std::net::Ipv4Addr>().unwrap().octets());
        // Options that look like the port of DNS if they are mistaken for the ports.
        packet.extend([0, 53, 0, 53].repeat(options.into()));
        packet.extend([0, 53]);
        packet.extend(port.to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    fn egress(allow_unmatched: bool) -> Egress {
        let rule = |network: &str, reached| Rule { network: network.parse().unwrap(), reached };
        let rules = vec![rule("10.1.0.0/16", true), rule("10.0.0.0/8", false), rule("192.168.0.1/32", false)];
        let nameservers = ["10.9.9.9", "10.9.9.8"].map(|text| text.parse().unwrap()).to_vec();
        Egress { nameservers, rules, allow_unmatched }
    }

    #[test]
    fn the_first_rule_that_contains_an_address_decides() {
        for allow_unmatched in [true, false] {
            let program = program(&egress(allow_unmatched));
            let cases = [
                ("10.1.0.0", true),
                ("10.1.255.255", true),
                ("10.0.255.255", false),
                ("10.2.0.0", false),
                ("192.168.0.1", false),
                ("192.168.0.2", allow_unmatched),
                ("8.8.8.8", allow_unmatched),
                ("255.255.255.255", allow_unmatched),
            ];
            for (to, reached) in cases {
                let answer = run(&program, &packet(to, TCP, 80, 0, 0));
                assert_eq!(answer, if reached { PASS } else { DROP }, "{to}, allow_unmatched {allow_unmatched}");
            }
        }
    }

    #[test]
    fn name_servers_are_reached_for_dns_and_for_nothing_else() {
        let program = program(&egress(true));
        for (to, protocol, port, options, offset, reached) in [
            ("10.9.9.9", UDP, 53, 0, 0, true),
            ("10.9.9.8", TCP, 53, 0, 0, true),
            ("10.9.9.8", UDP, 53, 3, 0, true),
            // The flag for more fragments is not part of the offset.
            ("10.9.9.9", UDP, 53, 0, 0x2000, true),
            ("10.9.9.9", UDP, 53, 0, 1, false),
            ("10.9.9.9", UDP, 80, 0, 0, false),
            ("10.9.9.9", TCP, 80, 3, 0, false),
            ("10.9.9.9", 1, 53, 0, 0, false),
            ("10.9.9.7", UDP, 53, 0, 0, false),
        ] {
            let answer = run(&program, &packet(to, protocol, port, options, offset));
            assert_eq!(answer, if reached { PASS } else { DROP }, "{to} {protocol} {port} {options} {offset}");
        }
    }

    #[test]
    fn nothing_but_arp_and_whole_ipv4_headers_passes() {
        let program = program(&Egress { nameservers: Vec::new(), rules: Vec::new(), allow_unmatched: true });
        let with_type = |kind: [u8; 2], length: usize| [&[0; 12][..], &kind, &vec![0; length][..]].concat();
        assert_eq!(run(&program, &with_type([0x08, 0x06], 28)), PASS);
        assert_eq!(run(&program, &with_type([0x08, 0x00], 20)), PASS);
        assert_eq!(run(&program, &with_type([0x08, 0x00], 19)), DROP);
        assert_eq!(run(&program, &with_type([0x86, 0xdd], 40)), DROP);
        assert_eq!(run(&program, &with_type([0x81, 0x00], 40)), DROP);
    }
}
