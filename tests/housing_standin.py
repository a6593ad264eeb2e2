"""造出 data/california_housing_standin.csv：没有网络时代替 California housing 的小表格。

用法：python tests/housing_standin.py

城市的位置是真实的，其余全部由固定种子的随机数生成，与真实数据同列、同单位、同样的毛病：
缺失的卧室数、封顶的房价和房龄、只有几行的类别、长尾的房间数和人口。
tests/test_data.py 会重新生成一遍，与文件比较。
"""

from pathlib import Path

import numpy as np
import pandas as pd

PATH = Path(__file__).resolve().parents[1] / "data" / "california_housing_standin.csv"
N = 4128  # 真实数据的五分之一

# 经度、纬度、人口比重、离海的方向（0 表示内陆城市）、房价水平、收入水平
CITIES = (
    (-118.25, 34.03, 30, 1, 0.32, 0.05),   # Los Angeles
    (-117.88, 33.75, 10, 1, 0.30, 0.20),   # Orange County
    (-122.42, 37.76, 8, 1, 0.62, 0.12),    # San Francisco
    (-122.22, 37.80, 8, 1, 0.35, 0.05),    # Oakland
    (-121.92, 37.33, 9, 1, 0.45, 0.28),    # San Jose
    (-117.13, 32.78, 9, 1, 0.20, 0.05),    # San Diego
    (-119.70, 34.43, 3, 1, 0.40, 0.08),    # Santa Barbara
    (-121.47, 38.58, 8, 0, 0.02, 0.02),    # Sacramento
    (-119.78, 36.75, 6, 0, -0.28, -0.15),  # Fresno
    (-119.03, 35.37, 4, 0, -0.30, -0.12),  # Bakersfield
    (-117.35, 34.05, 9, 0, -0.08, 0.02),   # San Bernardino
    (-121.29, 37.97, 4, 0, -0.12, -0.06),  # Stockton
    (-122.39, 40.58, 3, 0, -0.30, -0.18),  # Redding
)
COAST = np.array([  # 海岸线上的几个点：经度、纬度
    (-117.25, 32.7), (-118.0, 33.65), (-118.5, 34.02), (-119.3, 34.25), (-120.5, 34.5),
    (-121.3, 35.6), (-122.0, 36.9), (-122.51, 37.75), (-123.4, 38.8), (-124.1, 40.8),
])
BAY = (-122.2, 37.7)
ISLAND = (-118.36, 33.37)
NUM_ISLAND = 5


def distance_to_coast(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """到海岸折线的距离，单位：度。"""
    point = np.stack([longitude, latitude], 1)[:, None]  # (N, 1, 2)
    start, step = COAST[:-1], np.diff(COAST, axis=0)
    along = ((point - start) * step).sum(2) / (step**2).sum(1)
    nearest = start + np.clip(along, 0, 1)[..., None] * step
    return np.linalg.norm(point - nearest, axis=2).min(1)


def make() -> pd.DataFrame:
    """生成整张表，列的次序与真实数据相同。"""
    rng = np.random.default_rng(1990)
    cities = np.array(CITIES)
    which = rng.choice(len(cities), N, p=cities[:, 2] / cities[:, 2].sum())
    spread = np.exp(rng.normal(-1.75, 0.75, N))  # 离市中心多远
    angle = rng.uniform(0, 2 * np.pi, N)
    seaward = (cities[which, 3] == 1) & (np.cos(angle) < 0)
    longitude = cities[which, 0] + spread * np.cos(angle) * np.where(seaward, 0.25, 1.2)
    latitude = cities[which, 1] + spread * np.sin(angle)
    island = rng.permutation(N)[:NUM_ISLAND]
    longitude[island] = ISLAND[0] + rng.normal(0, 0.03, NUM_ISLAND)
    latitude[island] = ISLAND[1] + rng.normal(0, 0.02, NUM_ISLAND)
    coast = distance_to_coast(longitude, latitude)

    age = np.clip(np.round(33 - 22 * spread + rng.normal(0, 11, N)), 1, 52)
    households = np.exp(rng.normal(6.0, 0.68, N) + 0.012 * (28 - age))
    people = np.exp(rng.normal(1.05, 0.22, N))  # 每户人数
    income = np.exp(
        1.22 + 0.9 * cities[which, 5] + 0.22 * np.minimum(spread, 0.8) - 0.10 * np.minimum(coast, 2)
        - 0.55 * (people / 2.9 - 1) + rng.normal(0, 0.40, N))
    rooms = households * np.exp(1.40 + 0.24 * np.log(income) + rng.normal(0, 0.16, N))
    bedrooms = households * np.exp(0.045 + rng.normal(0, 0.07, N))

    near = np.exp(-spread / 0.25)
    log_value = (
        11.19 + 0.66 * np.log(income) + 0.012 * (income - 3.9) * np.exp(-coast / 0.3)
        + cities[which, 4] * (0.2 + 1.3 * near) + 0.45 * np.exp(-coast / 0.14)
        - 0.30 * np.tanh(coast / 0.8) - 0.42 * (people / 2.9 - 1)
        + 0.0035 * (age - 28) * near + 0.55 * (bedrooms / rooms - 0.21) + rng.normal(0, 0.20, N))
    log_value[island] += 0.5

    kind = np.where(coast < 0.12, "NEAR OCEAN", np.where(coast < 0.75, "<1H OCEAN", "INLAND"))
    bay = (np.hypot(longitude - BAY[0], latitude - BAY[1]) < 0.42) & (coast > 0.06)
    kind = np.where(bay, "NEAR BAY", kind)
    kind[island] = "ISLAND"
    table = pd.DataFrame({
        "longitude": longitude.round(2), "latitude": latitude.round(2), "housing_median_age": age,
        "total_rooms": rooms.round(), "total_bedrooms": np.maximum(bedrooms.round(), 1),
        "population": np.maximum((households * people).round(), 3),
        "households": np.maximum(households.round(), 1),
        "median_income": np.clip(income, 0.4999, 15.0001).round(4),
        "median_house_value": np.clip((np.exp(log_value) / 100).round() * 100, 14999, 500001),
        "ocean_proximity": kind,
    })
    missing = rng.permutation(np.setdiff1d(np.arange(N), island))[:41]
    table.loc[missing, "total_bedrooms"] = np.nan
    return table


if __name__ == "__main__":
    make().to_csv(PATH, index=False, lineterminator="\n")
    print(f"写好了 {PATH.name}：{N} 行，{PATH.stat().st_size // 1024} KB")
