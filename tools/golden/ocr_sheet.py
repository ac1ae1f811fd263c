"""A page of 40 printed lines, English and Chinese, for the OCR test.

python tools/golden/ocr_sheet.py wqy-microhei.ttc testdata/vision/ocr_sheet   (Pillow 13.0.0; Debian's fonts-wqy-microhei
and fonts-dejavu-core)
"""
import pathlib
import sys

from PIL import Image, ImageDraw, ImageFont

LINES = [
    "The quick brown fox jumps over the lazy dog.", "敏捷的棕色狐狸跳过了那只懒狗。",
    "Invoice No. 2024-1187, due on 15 March", "发票号码：二零二四年第一千一百八十七号",
    "Rivers carry sand from the mountains to the sea.", "河流把沙子从山上带到大海。",
    "Total: $1,284.50 including tax (8.25%)", "合计人民币三百二十五元整",
    "Please keep this receipt for your records.", "请妥善保管此收据以备查验。",
    "Opening hours: Monday to Friday, 9:00-17:30", "营业时间：周一至周五上午九点到下午五点半",
    "Contact us at support@example.org for help.", "如需帮助，请拨打服务热线。",
    "Water boils at 100 degrees Celsius at sea level.", "水在海平面上于一百摄氏度沸腾。",
    "She sold seven silver spoons on Saturday.", "她星期六卖了七把银勺子。",
    "Chapter 3: The History of Printing", "第三章：印刷术的历史",
    "Movable type was invented in China around 1040.", "活字印刷术大约在一零四零年发明于中国。",
    "A library is a hospital for the mind.", "图书馆是心灵的医院。",
    "Turn left at the second traffic light.", "在第二个红绿灯左转。",
    "Speed limit 60 km/h in residential areas", "居民区限速每小时六十公里",
    "The train to Beijing leaves at 14:35.", "开往北京的列车将于下午两点半发车。",
    "Fresh apples, pears and oranges daily", "每日供应新鲜苹果、梨和橙子",
    "Do not open the window while the fan runs.", "风扇运转时请勿打开窗户。",
    "Knowledge grows when it is shared.", "知识因分享而增长。",
    "Winter nights are long and quiet here.", "这里的冬夜漫长而安静。",
    "Thank you for reading this page.", "感谢您阅读本页。",
]
chinese = ImageFont.truetype(sys.argv[1], 26)
english = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", 24)
out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
assert len(LINES) == 40
page = Image.new("L", (800, 60 + 44 * len(LINES)), 255)
draw = ImageDraw.Draw(page)
for i, line in enumerate(LINES):
    draw.text((40, 30 + 44 * i), line, font=english if line.isascii() else chinese, fill=0)
page.quantize(16).save(out / "sheet.png", optimize=True)
(out / "labels.tsv").write_text("file\ttext\nsheet.png\t" + "\\n".join(LINES) + "\n", encoding="utf-8")
