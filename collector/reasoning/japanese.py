"""The Japanese half of :mod:`collector.reasoning.consistency`: who does what to direction and speed.

Japanese names the actor first, the verb last and the negation after the verb, and says nothing of an actor that is
understood. So a text is cut where one statement ends, what others do is taken out of each piece, and every act found
in the rest is asked whether the letters that follow take it back.
"""

from __future__ import annotations

import re
import unicodedata
from typing import cast

from collector.reasoning.claims import LateralClaim, LongitudinalClaim, PaceClaim, PositionClaim, Said, any_of

_SIDES: dict[str, LateralClaim] = {"左": "left", "右": "right"}


def read(text: str) -> tuple[Said, Said]:
    """What a text says, and what of that comes after its last "but" (が, けど), which takes back what was before."""
    pieces = _pieces(text)
    turns = [number for number, (_, is_turn) in enumerate(pieces) if is_turn]
    after = pieces[turns[-1] :] if turns else []
    return _said([piece for piece, _ in pieces]), _said([piece for piece, _ in after])


def _said(pieces: list[str]) -> Said:
    ours: list[LateralClaim] = []
    roads: list[LateralClaim] = []
    speeds: list[LongitudinalClaim] = []
    positions: list[PositionClaim] = []
    paces: list[PaceClaim] = []
    for piece in pieces:
        sided = piece
        for match in reversed(_affirmed(_STAYED, piece)):
            sided = sided[: match.start()] + "、" + sided[match.end() :]
        _read_sides(sided, ours, roads)
        found = [(match.start(), speed) for speed, acts in _SPEEDS.items() for match in _affirmed(acts, piece)]
        speeds += [speed for _, speed in sorted(found)]
        placed = [(match.start(), _position_of(match)) for match in _affirmed(_PLACED, piece)]
        positions += [place for _, place in sorted(placed)]
        driven = [(match.start(), pace) for pace, words in _PACES.items() for match in _affirmed(words, piece)]
        paces += [pace for _, pace in sorted(driven)]
    return Said(tuple(ours), tuple(roads), tuple(speeds), tuple(positions), tuple(paces))


# One way of writing each word, and nothing left that only looks like an act or a negation.
_SPELLINGS = (
    (r"\s+", ""),
    ("ひだり", "左"),
    ("みぎ", "右"),
    ("まがる", "曲がる"),
    (any_of("真っ?直ぐ 真っ?すぐ まっ直ぐ 真直 マッスグ"), "まっすぐ"),
    (any_of("スピード ペース 車速 速さ"), "速度"),
    (any_of("ステアリング ステア"), "ハンドル"),
    ("スロットル", "アクセル"),
    # Must: the two negations cancel.
    (any_of("なければ なくては ないと ねば なきゃ") + "(?:(?:なら|いけ)(?:ない|ません)|だめ|駄目)", ""),
    (any_of("ざるを得ない ざるをえない しかない かもしれない に違いない かもしれません しかありません"), ""),
    (any_of("やむを?得ず やむを?えず 必ず 思わず まず まもなく 間もなく 少なく 危なく 少ない 危ない つまらない"), ""),
    # Nouns made of acts.
    (
        any_of("一時停止の?標識 停止(?:線|標識|位置|禁止|信号) バス停 停留所 停車帯 駐車場 駐車帯 (?:停止|停車)状態"),
        "標",
    ),
    (r"(?:停止|停車)(?=から)", "標"),
    (any_of("制限速度 速度制限 速度計 ブレーキランプ 左右 右左折 右往左往 [左右]折(?:専用)?(?:レーン|車線|帯)"), "標"),
)
# A statement ends here; what comes next has a subject of its own.
_END = re.compile(
    "[。.!?;:\n]|ので(?![はも])|のに|ため(?:に|、)?|けれども?|けど|"
    "(?<=[るたいだすん])が、?|(?<=[るたいだす])から、?|(?<=[るたいだ])(?:場合|とき|時)(?:は|に)?、?|(?<=[るい])と、|"
    "(?<=[えけせてねめれ])ば、?|(?<=る)まで|(?<=る)間に?"
)
_ENDS = re.compile(f"({_END.pattern})")
_TURN, _HOWEVER = re.compile("が|けれど|けど|のに"), re.compile("しかし|ただし|だが|でも、")
_OTHER = (
    any_of(
        "(?:先行|前走|対向|後続|並走|隣接|合流|緊急|割り?込み)車両? 車両群? 車列 他車 前車 後車 救急車 消防車 乗用車 "
        "大型車 軽自動車 (?<![自本当停駐下乗発列対続走行])車(?:たち|達)? 自転車 トラック バス(?!停) バイク オートバイ "
        "スクーター タクシー トレーラー トラクター バン(?=[がはも]) パトカー カート 先行者 歩行者 人(?=[がはも]) "
        "子供 子ども 老人 犬 猫 動物 作業員 誰か ドライバー 運転手 ライバル 相手 先頭 "
        "(?:彼女?ら?|流れ|渋滞)(?=[がはも])"
    )
    + "(?![線間速道高体輪幅載庫内])"
)
_OURS = (
    any_of("自車両? 自分 我々 私(?:たち|達)? こちら [当本]車 自機 エゴ(?:車両?)?") + "[はがも]|"
    "(?:車線|道路?|コース|路面|カーブ)[はが]"
)
# The subject and all it does, up to a subject of ours; "their indicator" acts for them.
_OTHERS_ACT = re.compile(rf"{_OTHER}(?:の[^、はがも]{{1,9}})?(?:[はがも]|だけが|まで).*?(?=(?:{_OURS})|(?<=て)から|$)")
_LIKE = "(?:前方?|後方|対向|隣|後ろ|横|手前|目の前|他)の|[白黒赤青][いの]|遅い|速い|大きな|小さな|大型の"
# "The car that brakes", "the car on the left", "the parked car": said of them, not of us.
_OTHERS_VERB = re.compile(
    rf"(?:(?<=て)(?![いくきるおしみ])|(?<=で)(?!い)|(?<=ながら)|(?<=、)|^)(?:(?!て(?![いくきるおしみ])|で(?!い)|ながら)[^、])*?"
    rf"(?:[うくすつぬむるたぐぶ]|んだ|中の|側の)(?:{_LIKE}){{0,2}}(?={_OTHER})"
)
_OTHERS_PLACE = re.compile(rf"[左右][^、をにではがへ]{{0,6}}の(?:{_LIKE}){{0,2}}(?={_OTHER})")
_STANDING = re.compile(rf"(?:停止|停車|駐車|駐停車|減速|徐行)(?:中の?|している|した|する)?(?={_OTHER})")

# Letters after an act that take it back: an inflection, or a noun such as "no need".
_TAKEN_BACK = re.compile(
    "[ぁ-ん]{0,7}?(?:ない|なかっ|なく|ず(?!つ)|ません|ぬ(?=[、。]|$)|まい|るな(?=よ?$)|出来(?:ない|ず|ません))|"
    "[ぁ-ん]{0,6}(?:必要|わけ|理由|余地|つもり|予定)[はがも]?(?:な[いくし]|ありません)|[ぁ-ん]{0,6}代わり|"
    "(?:[はがも]|する必要は)?(?:不要|禁止|厳禁|無用|中止|できない|せず|しない)|[ぁ-ん]{0,6}?(?:だめ|ダメ|駄目)|"
    "も[^、も]{1,6}もし?(?:せず|ない|ません)|[ぁ-ん]{0,4}(?:のを|ことを|を)?(?:避け|やめ|止め|取りやめ|見送|控え|中止|禁じ)"
)

_SIDE = "(?P<side>[左右])"
_TOWARDS = (
    rf"{_SIDE}(?:方向|側|手|斜め前|の?車線|の?レーン|の路肩|の端|の縁石|の脇|の[内外]側|折れ|いっぱい|端|寄り)*"
    "(?:[にへ]|まで|に向けて|に向かって)"
)
_ADVERBS = "(?:[^、左右をがは]{0,9}?(?:を|、)?)"
_TURNED = any_of(
    "曲が 曲げ 旋回 回り込 回って 回る 回り 折れ 折り返 傾 逸れ うね くね カーブ 湾曲 弧 伸び 延び 続 ターン"
)
_MOVED = any_of(
    "操舵 舵 ハンドル 切 寄 避 よけ かわ 車線変更 レーンチェンジ 移 合流 回避 追い?[越抜] 抜 転舵 進 出 膨ら 入 迂回 "
    "シフト 向か 向け 向きを 幅寄せ 変更 変え 当て 振 逃げ 戻 ずれ ずら 取 退避 動 分岐 外れ"
)
_STEERED = re.compile(
    rf"{_TOWARDS}{_ADVERBS}{_MOVED}[^、。ぁ-ん]{{0,2}}(?:を切|を当て|を取|をと|を変え)?"
    r"|(?:ハンドル|舵|進路|操舵)[をは][^、左右]{{0,6}}?(?P<wheel>[左右])(?:側|方向)?(?:[にへ]?)(?:切|回|向け|取|当て|変え|修正)?"
    r"|(?P<word>[左右])(?:折|旋回|転舵|操舵|車線変更)(?!車|専用)|(?P<past>[左右])側?から(?:追い?[越抜]|抜|回|迂回|かわ|よけ|避)"
    r"|(?P<list>[左右])(?:の順|と(?=抜|切|曲))"
)
_TURNING = re.compile(rf"{_TOWARDS}{_ADVERBS}{_TURNED}|(?P<list>[左右])(?:と(?={_TURNED})|回り[にで])")
_ROAD_SUBJECT = re.compile("(?:車線|レーン|道路?|路|コース|カーブ|コーナー|ヘアピン)(?:[はが、]|自体)")
_BEND = any_of("カーブ コーナー ヘアピン ターン シケイン 曲がり角? 屈曲 ベンド S字")
_BEND_SIDE = re.compile(
    rf"{_SIDE}(?:方向|向き|回り|側)?(?:へ|に|への|の)?(?:[急緩強大小長鋭高中低速]|ゆるい|きつい|やか|な|い|への)*(?:S字)?{_BEND}"
    r"|(?:きつい|ゆるい|緩い|鋭い|急な|緩やかな|次の)(?P<noun>[左右])(?=[がはだの、]|です|$)"
    rf"|{_BEND}[はが][^、左右]{{0,4}}?(?P<after>[左右])(?:[にへだな]|向き|方向|です|回り|$)"
)
_STRAIGHT_ON = re.compile("直進|まっすぐに?[^、。左右はが]{0,4}(?:進|走|行|向か|抜|加速|駆)")
_STRAIGHT = re.compile("直線(?!的)|ストレート|まっすぐ|直進路")
_ANY_TURN = re.compile("曲が|カーブ|ハンドルを切|操舵|旋回|コーナー")
# "Right, then left" before one verb: the first side takes it. "Not right but left": the first one is no claim.
_SIDE_LIST = re.compile(
    "([左右])[にへ]?(?:、|続いて|次いで|次に|それから|その後|そして|すぐに?|さらに|→|と|から)+[左右](?=[にへとの折])"
)
_NOT_BUT = re.compile("[左右](?:側|方向|折)?(?:[にへで])?(?:曲がるの|行くの)?(?:では|じゃ)なく")

_BRAKING = (
    "ブレーキ(?:ング|[をにで]?(?:[^、をは]{0,6}?)(?:かけ|掛け|踏|操作|足を|使|入れ|残|当て|効か|きか)|"
    "を?(?=[、。]|$)|は踏)"
)
_LESS = any_of("落と 落ち 下げ 緩め 抑え 殺 絞 控え 低く 減ら 減じ 削")
_MORE = any_of("上げ 上が 増 高め 乗せ 戻 回復 出[しす]")
_SPEEDS: dict[LongitudinalClaim, re.Pattern[str]] = {
    "decelerate": re.compile(
        rf"減速|徐行|制動|スローダウン|速度ダウン|シフトダウン|エンジンブレーキ|速度[をは][^、を]{{0,7}}?{_LESS}|{_BRAKING}|"
        "アクセル(?:を|から)[^、を]{0,4}?(?:緩め|抜|戻|離|オフ|足)|アクセルオフ|"
        "(?:もっと|より|さらに)(?:遅く|ゆっくり)|譲[るりっろ]"
    ),
    "accelerate": re.compile(
        rf"加速|増速|発進|全開|速度アップ|速度[をは][^、を]{{0,7}}?{_MORE}|"
        "アクセルを[^、を]{0,4}?(?:踏|開け|入れ|吹か)|アクセルオン|(?:もっと|より|さらに)速く|"
        "走り出|動き出|走り始め|動き始め"
    ),
    "stop": re.compile(
        "(?:停止|停車|駐車)(?!中|の)|ストップ|止ま[るりっらろれ]|(?<!を)止め|"
        "(?:車両?|車体|カート)を[^、]{0,4}?止め|停め|停ま|(?<!こ)とま[るれ]|待[つちとたっ]|待機|静止"
    ),
    "keep": re.compile(
        "速度[をはも]?[^、を]{0,8}?(?:維持|保[ちっつた]|一定|そのまま|キープ|変え(?:ず|ない|ません|ることなく|る(?:必要|理由)[^、]{0,4}ない)|変わら)|"
        "(?<![隔間離]を)一定[にで](?:保|維持|走|進)|"
        "(?:一定|同じ|そのまま|現状)の?(?:速度|調子)|(?:今|現在|この|いま)(?:の|のまま)*速度(?:で|のまま)|"
        "アクセル[をは]?一定|定速|等速|巡航(?!速度)"
    ),
}

_EDGE = any_of("端 側 寄り 縁石?(?:際|側|沿い)? 路肩(?:側|寄り)? いっぱい 際")
_RUN = "(?:走|進|通|保|キープ|維持|とど|留|沿)"
# To stay at a side, or to pull out and come back, is no turn.
_STAYED = re.compile(
    f"(?P<stay>[左右]){_EDGE}+(?:ぎりぎり)?[をにで](?:[^、左右]{{0,6}}?(?:寄せて|寄って|沿って))?[^、左右を]{{0,4}}?{_RUN}"
    "|(?P<out>[左右]){1}(?:側|へ|に|の外){1,2}[^、左右]{0,6}?(?:出て|膨らんで|はみ出して|寄って)から?[、]?[^左右]{0,8}?戻"
)
_PLACED = re.compile(
    f"{_STAYED.pattern}|(?P<move>[左右]){_EDGE}+(?:に|へ|まで)[^、左右]{{0,6}}?(?:寄|移|移動)"
    f"|(?P<middle>中央|真ん?中|センター)(?:付近|寄り|側)?[をにで][^、左右を]{{0,6}}?(?:{_RUN}|寄|戻|移)"
)
_DRIVEN = "(?:走|進|曲が|通|抜け|回|入|旋回|コーナリング|運転|カーブ)"
_PACES: dict[PaceClaim, re.Pattern[str]] = {
    "slow": re.compile(f"(?<!もっと)(?<!より)(?<!さらに)(?:ゆっくり|低速で|遅めに|のろのろ)と?[^、]{{0,8}}?{_DRIVEN}"),
    "brisk": re.compile(
        f"(?<!もっと)(?<!より)(?<!さらに)(?:きびきび|素早く|すばやく|速めに|高速で|速く)と?[^、]{{0,8}}?{_DRIVEN}"
    ),
}


def _pieces(text: str) -> list[tuple[str, bool]]:
    """What the text says of us and the road, statement by statement, each with whether it follows a "but"."""
    text = unicodedata.normalize("NFKC", text)
    for spelling, word in _SPELLINGS:
        text = re.sub(spelling, word, text)
    pieces, joint = [], ""
    for number, statement in enumerate(_ENDS.split(text)):
        if number % 2:
            joint = statement
            continue
        piece = statement
        for said_of_them in (_STANDING, _OTHERS_VERB, _OTHERS_PLACE, _OTHERS_ACT):
            piece = said_of_them.sub("、", piece)
        turned = bool(_TURN.match(joint) or _HOWEVER.match(statement))
        pieces.append((_SIDE_LIST.sub(r"\1", _NOT_BUT.sub("", piece)), turned))
    return pieces


def _affirmed(acts: re.Pattern[str], piece: str) -> list[re.Match[str]]:
    return [match for match in acts.finditer(piece) if not _TAKEN_BACK.match(piece, match.end())]


def _read_sides(piece: str, ours: list[LateralClaim], roads: list[LateralClaim]) -> None:
    found = [(match.start(), _side_of(match)) for match in _affirmed(_STEERED, piece)]
    bends: list[tuple[int, LateralClaim]] = []
    for match in _affirmed(_TURNING, piece):
        # "Turn left" and "the lane turns left" share a verb; only a subject tells them apart.
        where = bends if _ROAD_SUBJECT.search(piece, 0, match.start()) else found
        where.append((match.start(), _side_of(match)))
    bends += [(match.start(), _side_of(match)) for match in _affirmed(_BEND_SIDE, piece)]
    found += [(match.start(), "straight") for match in _affirmed(_STRAIGHT_ON, piece)]
    ours += [side for _, side in sorted(found)]
    roads += [side for _, side in sorted(bends)]
    if _affirmed(_STRAIGHT, piece):
        roads.append("straight")
    denied = [match for match in _ANY_TURN.finditer(piece) if _TAKEN_BACK.match(piece, match.end())]
    if denied and len(set(re.findall("[左右]", piece[: denied[0].end()]))) != 1:
        roads.append("straight")


def _side_of(match: re.Match[str]) -> LateralClaim:
    return _SIDES[cast(str, next(side for side in match.groupdict().values() if side))]


def _position_of(match: re.Match[str]) -> PositionClaim:
    if match["middle"]:
        return "middle"
    if match["out"]:
        return "out left" if match["out"] == "左" else "out right"
    return cast("PositionClaim", _SIDES[match["stay"] or match["move"]])
